"""Worth, inclusion probabilities and the draw, beside values worked out by hand."""

import math

import pytest

from sidejudge_server.experiments.assignment import hash_to_unit
from sidejudge_server.review.selection import (
    Candidate,
    Reason,
    Stream,
    draw_round,
    inclusion_probabilities,
    rarity,
    stated_agreement,
    uncertainty,
    worth,
)
from sidejudge_storage import UndrawnItem


def answer(confidence=None, score_stddev=None):
    return UndrawnItem(
        "e", 1, "pass", None, confidence, score_stddev, None, False, 0, 0
    )


def candidates(count, **fields):
    return [Candidate(f"e{n:05}", **({"agreement": 0.9} | fields)) for n in range(count)]  # fmt: skip


@pytest.mark.parametrize(
    ("agreement", "expected"), [(0.5, 0.5), (0.9, 0.3), (0.8, 0.4), (1.0, 0.0)]
)
def test_uncertainty_is_the_standard_deviation_of_agreement(agreement, expected):
    assert uncertainty(agreement) == pytest.approx(expected)


def test_inclusion_probabilities_mix_worth_and_chance():
    """U = .5 .3 .2, n = 1.5, tau = .5: .75 u / 1 + .5 * 1.5 / 3."""
    found = inclusion_probabilities([0.5, 0.3, 0.2], items=1.5)

    assert found == pytest.approx([0.625, 0.475, 0.4])
    assert math.fsum(found) == pytest.approx(1.5)


def test_inclusion_probabilities_are_cut_to_one_and_never_zero_by_worth():
    """N = 3 of 4 with one unit worth everything: (.5 * 3 * 1 + .375) > 1; the rest .375."""
    found = inclusion_probabilities([1.0, 0.0, 0.0, 0.0], items=3)

    assert found == pytest.approx([1.0, 0.375, 0.375, 0.375])


def test_without_any_worth_everything_is_drawn_by_chance():
    assert inclusion_probabilities([0.0, 0.0], items=1) == [0.5, 0.5]
    assert inclusion_probabilities([], items=5) == []
    with pytest.raises(ValueError, match="finite"):
        inclusion_probabilities([math.nan], items=1)


def test_rarity_compares_a_share_with_the_fair_one():
    """1 of 8 labels and two pseudo labels: share 2/10, fair share 1/2."""
    counts = {"pass": 7, "fail": 1}

    assert rarity("fail", counts, labels=("pass", "fail")) == pytest.approx(0.6)
    assert rarity("pass", counts, labels=("pass", "fail")) == 0.0
    assert rarity("pass", {}, labels=("pass", "fail")) == 0.0


def test_disagreement_and_rarity_add_a_quarter_each():
    plain = Candidate("e", agreement=0.9)
    disputed = Candidate("e", agreement=0.9, disagreement=1.0, rarity=0.6)

    assert worth(plain) == pytest.approx(0.3)
    assert worth(disputed) == pytest.approx(0.3 + 0.25 + 0.15)


def test_stated_agreement_is_confidence_or_what_the_spread_of_grades_leaves():
    assert stated_agreement("j", 1, answer(confidence=0.7)) == 0.7
    assert stated_agreement("j", 1, answer(score_stddev=0.2)) == 0.8
    assert stated_agreement("j", 1, answer()) == 0.5


def test_a_draw_is_the_hash_of_the_id_below_the_probability():
    """The same candidates give the same draw; each outcome can be checked from its row."""
    first = draw_round(candidates(400), items=40, audit_share=0.15)

    assert first == draw_round(candidates(400), items=40, audit_share=0.15)
    for found in first:
        unit = hash_to_unit("review", found.candidate.evaluation_id)
        assert found.drawn == (unit < found.inclusion_probability)
        assert found.inclusion_probability == pytest.approx(0.1)
    assert 25 < sum(found.drawn for found in first) < 55


def test_a_round_is_ordered_by_worth():
    mixed = [Candidate(f"e{n}", agreement=0.5 + n / 200) for n in range(100)]

    found = draw_round(mixed, items=50, audit_share=0.15)

    placed = sorted((f for f in found if f.drawn), key=lambda f: f.place)
    assert [f.place for f in placed] == list(range(1, len(placed) + 1))
    assert [f.worth for f in placed] == sorted((f.worth for f in placed), reverse=True)


def test_audit_items_are_drawn_by_chance_alone_and_spread_evenly():
    """What monitors promise rests on labels that nobody chose for their worth."""
    unsure = [Candidate(f"a{n}", agreement=0.5, audit=True) for n in range(50)]
    sure = [Candidate(f"b{n}", agreement=1.0, audit=True) for n in range(50)]

    found = draw_round([*unsure, *sure, *candidates(900)], items=100, audit_share=0.15)

    audits = [f for f in found if f.stream is Stream.UNIFORM]
    assert {f.candidate.audit for f in audits} == {True}
    assert {f.inclusion_probability for f in audits} == {0.15}
    drawn = [f for f in audits if f.drawn]
    total = sum(f.drawn for f in found)
    places = sorted(f.place for f in drawn)
    gaps = [b - a for a, b in zip([0, *places], [*places, total + 1], strict=True)]
    assert max(gaps) <= math.ceil(total / len(drawn)) + 1
    assert all(f.reasons[0] is Reason.AUDIT for f in drawn)


def test_where_one_stream_runs_short_the_other_fills_up():
    """20 audits and 5 others for 10 items: all 5, and 5 of the 20."""
    few_others = [*candidates(5), *(Candidate(f"a{n}", 0.9, audit=True) for n in range(20))]  # fmt: skip

    found = draw_round(few_others, items=10, audit_share=0.1)

    assert {f.inclusion_probability for f in found[:5]} == {1.0}
    assert {f.inclusion_probability for f in found[5:]} == {0.25}
    no_audits = draw_round(candidates(100), items=10, audit_share=1.0)
    assert all(f.inclusion_probability == pytest.approx(0.1) for f in no_audits)


def test_what_has_a_label_is_considered_with_certainty_and_not_asked_for_again():
    found = draw_round(
        [Candidate("e1", 0.5, labelled=True), Candidate("e2", 0.5)],
        items=10,
        audit_share=0.15,
    )

    assert [(f.stream, f.drawn, f.inclusion_probability) for f in found] == [
        (Stream.LABELLED, False, 1.0),
        (Stream.RANKED, True, 1.0),
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"agreement": 0.99}, (Reason.CHANCE,)),
        ({"agreement": 0.6}, (Reason.UNCERTAIN,)),
        ({"agreement": 0.99, "disagreement": 0.5}, (Reason.DISAGREEMENT,)),
        (
            {"agreement": 0.6, "disagreement": 1.0, "rarity": 0.9},
            (Reason.UNCERTAIN, Reason.DISAGREEMENT, Reason.RARE_LABEL),
        ),
        ({"agreement": 0.99, "rarity": 0.4}, (Reason.CHANCE,)),
    ],
)
def test_reasons_say_what_makes_an_item_worth_a_label(fields, expected):
    (found,) = draw_round([Candidate("e", **fields)], items=1, audit_share=0.15)

    assert found.reasons == expected
