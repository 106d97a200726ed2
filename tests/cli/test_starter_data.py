"""Starter data is complete, well-formed and not solvable from length or single words."""

import json
import math
import re
from collections import Counter
from importlib.resources import files

import pytest

FOLDER = files("sidejudge_server.cli") / "starter_data"
LABEL_COUNTS = {
    "faithfulness": {"pass": 80, "fail": 80, "partial": 20},
    "relevance": {"pass": 26, "fail": 26, "partial": 12},
    "minimality": {"pass": 29, "fail": 27, "partial": 8},
    "safety": {"pass": 32, "fail": 32},
    "rubric": {0.0: 13, 0.25: 12, 0.5: 16, 0.75: 6, 1.0: 17},
}
GROUP_COUNTS = {
    "faithfulness": 62,
    "relevance": 26,
    "minimality": 26,
    "safety": 28,
    "rubric": 25,
}
NAMES = sorted(LABEL_COUNTS)
NEGATIONS = {"no", "nobody", "never", "not", "nothing", "without"}


def _load(name):
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _words(text):
    return re.findall(r"[a-z0-9']+", text.lower())


def _judged(example):
    inputs = example["inputs"]
    return inputs["agent_output"] if "agent_output" in inputs else inputs["artifact"]


def _all_words(example):
    words = []
    for value in example["inputs"].values():
        if isinstance(value, str):
            words += _words(value)
        else:
            for criterion in value:
                words += _words(f"{criterion['name']} {criterion['description']}")
    return words


def _sides(examples):
    """Clear cases only: (good, bad)."""
    good = [e for e in examples if e["label"] in ("pass", 0.75, 1.0)]
    bad = [e for e in examples if e["label"] in ("fail", 0.0, 0.25)]
    return good, bad


def _auc(high, low):
    wins = sum((h > x) + 0.5 * (h == x) for h in high for x in low)
    return wins / (len(high) * len(low))


def _bag_of_words_accuracy(good, bad):
    """Naive Bayes on the words of the judged text, each group predicted from the others."""
    items = [(e, 1) for e in good] + [(e, 0) for e in bad]
    right = 0
    for group in {e["group"] for e, _ in items}:
        counts = (Counter(), Counter())
        for example, label in items:
            if example["group"] != group:
                counts[label].update(set(_words(_judged(example))))
        totals = [sum(c.values()) for c in counts]
        vocabulary = len(counts[0] | counts[1])
        for example, label in items:
            if example["group"] == group:
                score = sum(
                    math.log((counts[1][w] + 1) / (totals[1] + vocabulary))
                    - math.log((counts[0][w] + 1) / (totals[0] + vocabulary))
                    for w in set(_words(_judged(example)))
                )
                right += (score > 0) == bool(label)
    return right / len(items)


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_those_of_the_readme(name):
    """Labels and groups have the numbers that the folder's README promises."""
    examples = _load(name)

    assert LABEL_COUNTS[name] == Counter(e["label"] for e in examples)
    assert GROUP_COUNTS[name] == len({e["group"] for e in examples})
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"| `{name}.jsonl` | {len(examples)} | {GROUP_COUNTS[name]} |" in readme


@pytest.mark.parametrize("name", NAMES)
def test_every_example_has_the_shape_its_judge_asks_for(name):
    """Each line has the inputs of its judge, a group and a one-sentence rationale."""
    expected = {
        "faithfulness": {"context", "ground_truth", "artifact"},
        "rubric": {"task_context", "agent_output", "criteria"},
    }.get(name, {"context", "artifact"})

    for example in _load(name):
        assert set(example) == {"inputs", "label", "group", "rationale"}
        assert set(example["inputs"]) == expected
        assert all(example["inputs"].values())
        assert re.fullmatch(r"[a-z0-9-]+", example["group"])
        assert example["rationale"].endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_no_example_occurs_twice(name):
    """An input has one label."""
    inputs = Counter(json.dumps(e["inputs"], sort_keys=True) for e in _load(name))

    assert [text for text, count in inputs.items() if count > 1] == []


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_short(name):
    """A small model on a CPU judges each in about half a second."""
    lengths = [len(_all_words(e)) for e in _load(name)]

    assert min(lengths) >= 20
    assert max(lengths) <= 70


@pytest.mark.parametrize("name", NAMES)
def test_most_groups_hold_good_and_bad_variants(name):
    """Variants of one case differ in label, so the case itself says little."""
    good, bad = _sides(_load(name))
    good_groups = {e["group"] for e in good}
    bad_groups = {e["group"] for e in bad}

    assert len(good_groups & bad_groups) >= 0.6 * len(good_groups | bad_groups)


@pytest.mark.parametrize("name", NAMES)
def test_length_does_not_give_the_label_away(name):
    """Length ranks good above bad hardly better than chance."""
    good, bad = _sides(_load(name))
    auc = _auc([len(_judged(e)) for e in good], [len(_judged(e)) for e in bad])

    assert 0.35 <= auc <= 0.65


@pytest.mark.parametrize("name", NAMES)
def test_negations_do_not_give_the_label_away(name):
    """Good and bad outputs deny things about equally often."""
    good, bad = _sides(_load(name))
    auc = _auc(
        [len(NEGATIONS & set(_words(_judged(e)))) for e in good],
        [len(NEGATIONS & set(_words(_judged(e)))) for e in bad],
    )

    assert 0.35 <= auc <= 0.65


@pytest.mark.parametrize("name", NAMES)
def test_single_words_do_not_give_the_label_away(name):
    """A bag-of-words classifier stays near chance on groups it has not seen."""
    assert _bag_of_words_accuracy(*_sides(_load(name))) <= 0.68


def test_overlap_with_the_source_does_not_give_faithfulness_away():
    """Copying words from the source is neither a sign of support nor of its lack."""

    def overlap(example):
        words = set(_words(_judged(example)))
        source = set(_words(example["inputs"]["ground_truth"]))
        return len(words & source) / len(words)

    good, bad = _sides(_load("faithfulness"))

    auc = _auc([overlap(e) for e in good], [overlap(e) for e in bad])
    assert 0.35 <= auc <= 0.65
