"""How several labels of one item become one."""

import pytest

from sidejudge_server.config import ReviewSettings
from sidejudge_server.review.labels import LabelRule, by_evaluation
from sidejudge_storage import GivenLabel

LATEST = LabelRule.of(ReviewSettings())
VOTE = LabelRule.of(ReviewSettings(label_rule="vote"))


def labels(*given):
    """Return labels of one item, oldest first, of (source, author, verdict or score)."""
    return [
        GivenLabel(
            "e",
            f"f{n}",
            source,
            author,
            value if isinstance(value, str) else None,
            None if isinstance(value, str) else value,
        )
        for n, (source, author, value) in enumerate(given)
    ]


def test_by_default_the_latest_of_the_weightiest_source_counts():
    """As in figures of quality."""
    given = labels(
        ("expert", "ann", "fail"), ("expert", "ben", "pass"), ("user", "cem", "fail")
    )

    assert LATEST.merged(given).verdict == "pass"


def test_in_a_vote_weights_add_up():
    """Three users outweigh an expert at 2 to 4, two do not."""
    given = labels(("expert", "ann", "pass"), ("user", "b", "fail"), ("user", "c", "fail"))  # fmt: skip
    more = [*given, *labels(*[("user", "d", "fail")] * 4)[3:]]

    assert VOTE.merged(given).verdict == "pass"
    assert VOTE.merged(more).verdict == "fail"


def test_each_author_has_one_voice_by_the_latest_label():
    """Nobody wins by labelling twice; labels without author have one voice a source."""
    given = labels(
        ("user", "b", "fail"),
        ("user", "b", "fail"),
        ("user", "c", "pass"),
        ("user", "d", "pass"),
    )
    anonymous = labels(
        ("user", "", "fail"), ("user", "", "fail"), ("expert", "a", "pass")
    )
    changed = labels(
        ("user", "b", "fail"), ("user", "c", "fail"), ("user", "b", "pass")
    )

    assert VOTE.merged(given).verdict == "pass"
    assert VOTE.merged(anonymous).verdict == "pass"
    assert VOTE.merged(changed).verdict == "pass"


def test_scores_are_averaged_by_weight():
    """(4 * 0.9 + 2 * 0.3) / 6."""
    given = labels(("expert", "a", 0.9), ("user", "b", 0.3))

    assert VOTE.merged(given).score == pytest.approx(0.7)
    assert LATEST.merged(given).score == 0.9


def test_weights_of_zero_leave_the_latest():
    rule = LabelRule(vote=True, weights={"expert": 0.0, "user": 0.0, "downstream": 0.0})

    assert rule.merged(labels(("user", "b", "fail"))).verdict == "fail"


def test_labels_are_grouped_in_their_order():
    one, two = labels(("user", "b", "fail"), ("user", "c", "pass"))

    assert by_evaluation([one, two]) == {"e": [one, two]}
