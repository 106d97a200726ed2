"""Too many unusable answers end a run, whichever of them came first."""

from __future__ import annotations

import itertools

import pytest

from sidejudge_server.optimization.faults import RunAborted
from sidejudge_server.optimization.metering import AnswerTally


def _ends(tally, usable):
    """Return whether a run ends when answers come in this order."""
    try:
        for one in usable:
            if one:
                tally.usable()
            else:
                tally.not_usable()
    except RunAborted:
        return True
    return False


@pytest.mark.parametrize(("unusable", "ends"), [(4, False), (5, True)])
def test_answers_that_come_together_end_a_run_in_any_order(unusable, ends):
    """A fifth of 20 is 4, if they come first, last or in between."""
    answers = [False] * unusable + [True] * (20 - unusable)
    for shift in range(20):
        tally = AnswerTally("openai/x")
        with tally.expecting(20):
            order = itertools.islice(itertools.cycle(answers), shift, shift + 20)
            assert _ends(tally, order) is ends


def test_run_ends_as_soon_as_the_rest_cannot_make_up_for_it():
    """A model that answers nonsense is not asked to the end."""
    tally = AnswerTally("openai/x")
    with tally.expecting(100):
        assert _ends(tally, [False] * 30)
    assert tally.answers == 21


def test_one_by_one_the_share_so_far_counts():
    """From 20 answers on."""
    assert not _ends(AnswerTally("openai/x"), [False] * 19)
    assert _ends(AnswerTally("openai/x"), [False] * 20)


def test_answers_of_an_optimizer_are_looked_at_when_its_trial_has_ended():
    """It asks from several threads."""
    tally = AnswerTally("openai/x")
    for _ in range(30):
        tally.not_usable(wait=True)
    with pytest.raises(RunAborted):
        tally.check()
