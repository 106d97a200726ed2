"""What a cascade accepts keeps its promise, whatever reaches the later members."""

import math

import numpy as np
import pytest

from sidejudge_server.judges.types import Verdict
from sidejudge_server.juries.cascade import accepting_stage, certify_stages
from sidejudge_server.juries.types import Ballot, MemberAnswer
from sidejudge_server.trust.types import Target

PASS, FAIL = Verdict.PASS, Verdict.FAIL
TARGET = Target(0.9, 0.9)


def both_know(rng, n):
    """The second member is better, and both find the same items hard."""
    hard = rng.random(n)
    first = np.clip(1 - hard / 2 + rng.normal(0, 0.05, n), 0.5, 1)
    second = np.clip(1 - hard / 6 + rng.normal(0, 0.05, n), 0.5, 1)
    return (first, rng.random(n) > hard / 2), (second, rng.random(n) > hard / 6)


def second_is_worse_on_what_is_left(rng, n):
    """Good on the whole, wrong a little too often on what the first one passes on."""
    first = rng.uniform(0.5, 1, n)
    right = rng.random(n) > np.where(first > 0.75, 0.02, 0.4)
    second = rng.uniform(0.5, 1, n)
    second_right = rng.random(n) > np.where(first > 0.75, 0.0, 0.11)
    return (first, right), (second, second_right)


def at_the_boundary(rng, n):
    """Both wrong a little more often than is allowed, whatever their confidence."""
    return (
        (rng.uniform(0.5, 1, n), rng.random(n) > 0.101),
        (rng.uniform(0.5, 1, n), rng.random(n) > 0.101),
    )


def ballots(stages, *, labelled=True):
    made = []
    for number in range(len(stages[0][0])):
        answers = tuple(
            MemberAnswer("e", PASS if right[number] else FAIL, float(p[number]), None)
            for p, right in stages
        )
        made.append(Ballot(answers, PASS, None, f"g{number}"))
    return made if labelled else [ballot.answers for ballot in made]


def wrong_of_accepted(stages, certificates):
    """Return how often accepted answers are wrong, and which share is accepted."""
    open_, wrong, accepted = np.ones(len(stages[0][0]), bool), 0, 0
    for (p, right), certificate in zip(stages, certificates, strict=True):
        if certificate.threshold is None:
            continue
        here = open_ & (p >= certificate.threshold)
        wrong += int((~right[here]).sum())
        accepted += int(here.sum())
        open_ &= ~here
    return (wrong / accepted if accepted else 0.0), accepted / len(open_)


@pytest.mark.slow
@pytest.mark.parametrize(
    "population", [both_know, second_is_worse_on_what_is_left, at_the_boundary]
)
def test_cascades_violate_their_target_as_rarely_as_they_say(population):
    """At most delta of 300 label sets, plus three standard errors; truth from 200,000 items."""
    rng = np.random.default_rng(11)
    truth = population(rng, 200_000)
    runs, violations = 300, 0
    for _ in range(runs):
        found = certify_stages(
            ballots(population(rng, 400)),
            ballots(population(rng, 200), labelled=False),
            TARGET,
            members=2,
        )
        violations += wrong_of_accepted(truth, found)[0] > 0.1
    assert violations / runs <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / runs)


def test_a_second_member_accepts_more_than_the_first_alone():
    rng = np.random.default_rng(5)
    truth = both_know(rng, 50_000)
    alone, together = [], []
    for _ in range(40):
        stages = both_know(rng, 600)
        found = certify_stages(ballots(stages), (), TARGET, members=2)
        together.append(wrong_of_accepted(truth, found)[1])
        first = certify_stages(ballots(stages[:1]), (), TARGET, members=1)
        alone.append(wrong_of_accepted(truth[:1], first)[1])
    assert np.mean(together) > np.mean(alone)


def test_the_first_confident_member_answers_and_nobody_without_a_confidence():
    stages = both_know(np.random.default_rng(5), 3000)
    found = certify_stages(ballots(stages), (), TARGET, members=2)
    assert all(certificate.threshold is not None for certificate in found)
    sure, unsure = (
        MemberAnswer("a", PASS, 0.999, None),
        MemberAnswer("b", PASS, 0.5, None),
    )
    mute = MemberAnswer("c", PASS, None, None)
    assert accepting_stage((sure, None), found) == 0
    assert accepting_stage((unsure, sure), found) == 1
    assert accepting_stage((mute, sure), found) == 1
    assert accepting_stage((unsure, unsure), found) is None


def test_suspected_items_are_for_people_and_count_for_no_certificate():
    made = ballots(both_know(np.random.default_rng(5), 600))
    clean = certify_stages(made, (), TARGET, members=2)
    suspected = [
        Ballot(
            tuple(
                MemberAnswer("e", FAIL, 0.99, None, suspected=True) for _ in range(2)
            ),
            PASS,
            None,
            f"s{number}",
        )
        for number in range(200)
    ]
    assert certify_stages(made + suspected, (), TARGET, members=2) == clean
    assert accepting_stage(suspected[0].answers, clean) is None


def test_without_labels_nothing_is_accepted_and_it_says_why():
    found = certify_stages((), (), TARGET, members=2)
    assert [c.threshold for c in found] == [None, None]
    assert all("no audit labels" in c.reason for c in found)
