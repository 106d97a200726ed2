"""Biases are found where they are, and not where they are not."""

import random

import pytest

from sidejudge_server.benchmark.agreement import Answer
from sidejudge_server.benchmark.bias import bias_probes, model_family
from sidejudge_server.judges.types import Verdict

PASS, FAIL = Verdict.PASS, Verdict.FAIL


def answers(count, make):
    rng = random.Random(4)  # noqa: S311 - reproducible items, not a secret
    return [make(rng, number) for number in range(count)]


def probe(found, name):
    (one,) = [p for p in found if p.name.startswith(name)]
    return one


def verdict(yes):
    return PASS if yes else FAIL


def test_a_judge_that_likes_long_texts_is_told_from_one_whose_good_texts_are_long():
    def likes_length(rng, number):
        length, label = rng.randint(10, 500), rng.random() < 0.5
        return Answer(
            f"e{number}", verdict(label), verdict(length > 250), length=length
        )

    def follows_labels(rng, number):
        label = rng.random() < 0.5
        length = rng.randint(200, 500) if label else rng.randint(10, 300)
        right = rng.random() < 0.8
        return Answer(
            f"e{number}", verdict(label), verdict(label == right), length=length
        )

    biased = probe(bias_probes(answers(200, likes_length), model="m"), "verbosity")
    assert biased.figure.lower > 0.5
    fair = probe(bias_probes(answers(200, follows_labels), model="m"), "verbosity")
    assert fair.figure.lower < 0 < fair.figure.upper


def test_order_counts_swaps_and_which_way_they_lean():
    def make(_, number):
        # Every fourth verdict changes, always from fail to pass.
        swapped = number % 4 == 0
        repeats = (0.4, 0.6) if swapped else (0.7, 0.7)
        return Answer(
            f"e{number}", PASS, PASS, repeats=repeats, swapped=swapped, length=5
        )

    found = bias_probes(answers(40, make), model="m")
    swaps, lean = probe(found, "order: swaps"), probe(found, "order: lean")
    assert swaps.figure.value == 0.25
    assert swaps.figure.lower < 0.25 < swaps.figure.upper
    assert lean.figure.value == pytest.approx(0.05)
    assert lean.figure.lower > 0
    once = bias_probes(answers(40, lambda _, n: Answer(f"e{n}", PASS, FAIL)), model="m")
    assert [p.name for p in once] == ["verbosity"]


def test_self_preference_compares_families_beside_their_labels():
    def make(rng, number):
        own = number % 2 == 0
        label = rng.random() * 0.5
        return Answer(
            f"e{number}", label, label + (0.2 if own else 0.0),
            writer="qwen3-8b" if own else "openai/gpt-4o",
        )  # fmt: skip

    found = bias_probes(answers(60, make), model="local/qwen2.5-coder-1.5b")
    preference = probe(found, "self-preference (qwen)")
    assert preference.figure.value == pytest.approx(0.2)
    assert preference.figure.lower > 0.15


def test_groups_are_drawn_not_items():
    """Ten groups of twenty equal items have the spread of ten items."""

    def make(_, number):
        group = number // 20
        swapped = group % 2 == 0
        return Answer(
            f"e{number}",
            PASS,
            PASS,
            group=f"g{group}",
            repeats=(0.1, 0.9),
            swapped=swapped,
        )

    grouped = probe(bias_probes(answers(200, make), model="m"), "order: swaps")
    assert grouped.figure.upper - grouped.figure.lower > 0.4


def test_too_few_answers_say_nothing():
    found = bias_probes(
        answers(5, lambda _, n: Answer(f"e{n}", PASS, PASS, length=n + 1)), model="m"
    )
    assert found[0].figure is None


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("openai/gpt-4o-mini", "gpt"),
        ("local/qwen2.5-coder-1.5b", "qwen"),
        ("Llama-3", "llama"),
        ("", ""),
    ],
)
def test_families_are_the_letters_at_the_front(model, family):
    assert model_family(model) == family
