"""Estimates from labels that were not chosen alike: unbiased with weights, refused without."""

import numpy as np
import pytest

from sidejudge_server.errors import FailedPreconditionError
from sidejudge_server.review.estimates import WeighedItem, estimated, rounds_done
from sidejudge_server.review.selection import Candidate, Stream, draw_round

RUNS = 150
ROUNDS = 4
ITEMS = 400


def weighed(**fields):
    defaults = {
        "round_number": 1,
        "stream": Stream.RANKED,
        "drawn": True,
        "probability": 0.5,
        "judged": 0.8,
        "label": 1.0,
    }
    return WeighedItem(**(defaults | fields))


def population(rng, run):
    """Return rounds of a judge that is surer than it should be, labelled where drawn."""
    items = []
    for number in range(1, ROUNDS + 1):
        unsure = rng.random(ITEMS) < 0.3
        stated = np.where(unsure, 0.55, 0.98)
        right = rng.random(ITEMS) < np.where(unsure, 0.45, 0.93)
        audit = rng.random(ITEMS) < 0.1
        candidates = [
            Candidate(f"{run}/{number}/{n}", float(stated[n]), audit=bool(audit[n]))
            for n in range(ITEMS)
        ]
        for found, truth in zip(
            draw_round(candidates, items=40, audit_share=0.15), right, strict=True
        ):
            item = WeighedItem(
                round_number=number,
                stream=found.stream,
                drawn=found.drawn,
                probability=found.inclusion_probability,
                judged=found.candidate.agreement,
                label=float(truth) if found.drawn else None,
            )
            items.append((item, float(truth)))
    return items


@pytest.mark.slow
def test_weighted_estimates_are_unbiased_where_the_mean_of_labels_is_not():
    """150 queues: the mean error is within 3 standard errors of 0; the naive one is far outside."""
    rng = np.random.default_rng(20)
    errors, naive, covered = [], [], 0
    for run in range(RUNS):
        drawn = population(rng, run)
        truth = float(np.mean([t for _, t in drawn]))
        items = [item for item, _ in drawn]
        found = estimated(items, weighted=True)
        errors.append(found.estimate - truth)
        covered += found.low <= truth <= found.high
        ranked = [i.label for i in items if i.drawn and i.stream is Stream.RANKED]
        naive.append(float(np.mean(ranked)) - truth)

    def standard_error(values):
        return float(np.std(values, ddof=1)) / len(values) ** 0.5

    assert abs(np.mean(errors)) < 3 * standard_error(errors)
    assert abs(np.mean(errors)) < 0.01
    assert np.mean(naive) < -10 * standard_error(naive)
    assert np.mean(naive) < -0.05
    assert covered / RUNS > 0.9


def test_unweighted_estimates_of_ranked_items_are_refused_with_the_way_out():
    items = [weighed() for _ in range(34)]
    items += [weighed(stream=Stream.UNIFORM) for _ in range(6)]

    with pytest.raises(FailedPreconditionError, match="uniform_only") as caught:
        estimated(items, weighted=False)

    assert caught.value.reason == "BIASED_SAMPLE"
    assert caught.value.metadata == {"ranked": "34", "uniform": "6"}


def test_audit_items_alone_may_count_all_alike():
    items = [
        weighed(stream=Stream.UNIFORM, label=float(n % 4 > 0), probability=0.1)
        for n in range(40)
    ]

    found = estimated(items, weighted=False)

    assert found.estimate == pytest.approx(0.75)
    assert found.low < 0.75 < found.high


def test_weights_are_one_over_the_probability_by_hand():
    """40 labelled at .5 (30 right), 60 not drawn, all judged .8: .8 + (40 * -.05 / .5) / 100."""
    items = [weighed(label=float(n % 4 > 0)) for n in range(40)]
    items += [weighed(drawn=False, label=None) for _ in range(60)]

    found = estimated(items, weighted=True)

    assert found.estimate == pytest.approx(0.8 - 4 / 100)
    assert (found.considered, found.labelled, found.rounds) == (100, 40, 1)
    assert found.waiting == 0


def test_rounds_count_when_nine_tenths_of_what_they_stand_for_have_a_label():
    """Six of seven labels are half of what the round stands for where the seventh was unlikely."""
    heavy = weighed(probability=0.05, label=None)
    items = [*[weighed(probability=0.3)] * 6, heavy]
    done = [*[weighed(round_number=2)] * 19, weighed(round_number=2, label=None)]

    assert rounds_done([*items, *done]) == {2: pytest.approx(0.95)}
    assert rounds_done([weighed(drawn=False, label=None)]) == {1: 1.0}


def test_half_done_rounds_are_left_out_and_counted_as_waiting():
    done = [weighed(label=float(n % 2)) for n in range(30)]
    started = [weighed(round_number=2)] * 3
    started += [weighed(round_number=2, label=None)] * 7

    found = estimated([*done, *started], weighted=True)

    assert (found.considered, found.waiting) == (30, 7)


def test_too_few_labels_say_how_many_are_missing():
    found = estimated([weighed() for _ in range(12)], weighted=True)

    assert found.estimate is None
    assert "18 more" in found.cannot_say


def test_labels_of_items_that_were_not_drawn_count_for_nothing():
    """They came for reasons of their own; those that were there before the round count with certainty."""
    items = [weighed(label=float(n % 2)) for n in range(30)]
    items += [weighed(drawn=False, label=None) for _ in range(30)]
    volunteered = [weighed(drawn=False, label=0.0) for _ in range(30)]
    known = [weighed(stream=Stream.LABELLED, drawn=False, probability=1.0, label=0.0)]

    plain = estimated(items, weighted=True)

    assert estimated([*items[:30], *volunteered], weighted=True) == plain
    assert estimated([*items, *known], weighted=True).estimate < plain.estimate


def test_labels_that_all_say_the_same_do_not_make_an_estimate_exact():
    found = estimated([weighed(judged=1.0) for _ in range(40)], weighted=True)

    assert found.estimate == 1.0
    assert found.low < 0.95
