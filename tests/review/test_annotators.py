"""How far people agree with each other."""

import pytest

from sidejudge_server.review.annotators import annotator_agreement
from sidejudge_storage import GivenLabel


def given(item, author, value, number=0):
    verdict, score = (value, None) if isinstance(value, str) else (None, value)
    return GivenLabel(f"e{item}", f"f{number}", "expert", author, verdict, score)


def pairs(*values):
    """Return the labels of ann and ben by item."""
    return [
        given(item, author, value)
        for item, both in enumerate(values)
        for author, value in zip(("ann", "ben"), both, strict=True)
    ]


def test_too_few_items_say_how_many_are_missing():
    found = annotator_agreement(pairs(*[("pass", "pass")] * 3), binary=True)

    assert (found.items, found.annotators, found.labels) == (3, 2, 6)
    assert found.percent_agreement is None
    assert "7 more" in found.cannot_say


def test_agreement_of_two_annotators_by_hand():
    """8 of 10 agree, 12 of 20 labels are pass.

    Alpha: 1 - (19 * 2 * 2) / (2 * 12 * 8) = 1 - 76/192. AC1: by chance 2 * .6 * .4 = .48.
    """
    values = [("pass", "pass")] * 5 + [("fail", "fail")] * 3 + [("pass", "fail")] * 2

    found = annotator_agreement(pairs(*values), binary=True)

    assert found.percent_agreement == pytest.approx(0.8)
    assert found.krippendorff_alpha == pytest.approx(1 - 76 / 192)
    assert found.gwet_ac1 == pytest.approx((0.8 - 0.48) / 0.52)
    low, high = found.gwet_ac1_interval
    assert low < found.gwet_ac1 < high
    assert found.cannot_say == ""


def test_labels_that_are_all_alike_have_no_agreement_beyond_chance():
    """Percent agreement is told; what chance would do cannot be."""
    found = annotator_agreement(pairs(*[("pass", "pass")] * 10), binary=True)

    assert found.percent_agreement == 1.0
    assert found.krippendorff_alpha is None
    assert found.gwet_ac1 is None
    assert "one category" in found.cannot_say


def test_scores_agree_when_they_are_close_and_have_no_ac1():
    values = [(0.1 * n, 0.1 * n + 0.05) for n in range(9)] + [(0.1, 0.9)]

    found = annotator_agreement(pairs(*values), binary=False)

    assert found.percent_agreement == pytest.approx(0.9)
    assert 0 < found.krippendorff_alpha < 1
    assert found.gwet_ac1 is None
    assert found.cannot_say == ""


def test_of_an_author_the_latest_label_counts_and_nobody_is_no_annotator():
    labels = pairs(*[("pass", "pass")] * 5, *[("fail", "fail")] * 5)
    labels += [given(0, "ben", "fail", 1), given(1, "", "fail", 2)]

    found = annotator_agreement(labels, binary=True)

    assert (found.items, found.annotators, found.labels) == (10, 2, 20)
    assert found.percent_agreement == pytest.approx(0.9)
