"""The comparison of optimizers: its figures, its memory of what has been run, and what it counts."""

from __future__ import annotations

import json
import urllib.request

import pytest

from bench.judge_figures import figures, table
from bench.judge_optimizers import Comparison, DifferentComparisonError
from bench.judge_sidecar import Search
from bench.judge_tasks import JudgeTask, examples_of, plain_instructions
from bench.wire_counter import counted
from tests.stand_in import running_stand_in

LABELS = {"a": "pass", "b": "fail", "c": "fail", "d": "pass", "e": "pass"}


def result(answers, **changed):
    """Return what is kept of a row that answered so, one letter an example."""
    words = {"p": "pass", "f": "fail", "-": ""}
    items = [
        {"key": key, "answer": words[a]}
        for key, a in zip(LABELS, answers, strict=False)
    ]
    kept = {
        "items": items,
        "calls": 5,
        "seconds": 1.5,
        "outcome": "",
        "load": [1.0, 2.0],
    }
    return kept | changed


def test_a_row_is_compared_with_version_1_in_pairs() -> None:
    """Wins and losses are counted per example; interval and p are those of the pairs."""
    rows = figures({"version 1": result("ppppp"), "memory": result("pfpff")}, LABELS)
    assert [row["accuracy"] for row in rows] == [3 / 5, 2 / 5]
    assert (rows[1]["wins"], rows[1]["losses"]) == (1, 2)
    assert rows[1]["difference"] == pytest.approx(-1 / 5)
    assert rows[1]["p"] == pytest.approx(1.0)
    assert rows[1]["difference_interval"].low < -1 / 5 < rows[1]["difference_interval"].high  # fmt: skip


def test_an_unusable_answer_is_wrong() -> None:
    """Plain DSPy may give no verdict: that is no agreement."""
    rows = figures({"version 1": result("ppppp"), "plain DSPy": result("p--p-")}, LABELS)  # fmt: skip
    assert rows[1]["accuracy"] == 2 / 5


def run(*, before, after, wins=0, losses=0):
    """Return what is kept of a run whose gate saw this; as in JSON without zeros."""
    decision = {
        "pair_count": 5,
        "baseline": {"value": before / 5},
        "candidate": {"value": after / 5},
        "wins": wins,
        "losses": losses,
    }
    seen = {k: v for k, v in decision.items() if v}
    return result("", run={"decision": seen})


def test_a_run_is_paired_with_version_1_of_its_own_gate() -> None:
    """Not with what version 1 said when it was served: close calls may come out otherwise."""
    results = {"version 1": result("ppppp"), "memory": run(before=2, after=4, wins=2)}
    rows = figures(results, LABELS)
    assert (rows[0]["accuracy"], rows[1]["accuracy"]) == (3 / 5, 4 / 5)
    assert rows[1]["baseline"] == 2 / 5
    assert (rows[1]["wins"], rows[1]["losses"]) == (2, 0)
    assert "| memory | 0.800 (0.376 to 0.964) | 0.400 | +0.400" in table(rows)


def test_a_run_without_a_candidate_leaves_version_1() -> None:
    """Its difference is 0, and p cannot be told instead of being 1."""
    results = {"version 1": result("ppppp"), "memory": run(before=3, after=3)}
    rows = figures(results, LABELS)
    assert rows[1]["accuracy"] == rows[0]["accuracy"]
    assert rows[1]["difference"] == 0
    assert rows[1]["p"] is None


def test_without_version_1_there_is_nothing_to_compare() -> None:
    """Rows that have been run before it wait for it."""
    assert figures({"memory": run(before=1, after=2, wins=1)}, LABELS) == []


def write(path, rows):
    lines = [
        json.dumps({"id": f"id{n}", "label": label, "source": source, "group": f"g{n}",
                    "inputs": {"artifact": text, "ground_truth": "", "context": "c"}})
        for n, (label, source, text) in enumerate(rows)
    ]  # fmt: skip
    path.write_text("\n".join(lines), encoding="utf-8")


def test_a_task_draws_short_examples_of_its_sources(tmp_path) -> None:
    """Long ones and those of other sources are left out, and the seed decides the draw."""
    rows = [("pass", "ours", f"word {n}") for n in range(9)]
    rows += [("fail", "ours", "word " * 50), ("fail", "theirs", "short")]
    write(tmp_path / "safety.jsonl", rows)
    task = JudgeTask("safety", ("ours",), max_words=10, limit=6)
    drawn = examples_of(task, tmp_path, seed=3)
    assert len(drawn) == 6
    assert {e.label_key for e in drawn} == {"pass"}
    assert drawn == examples_of(task, tmp_path, seed=3)
    assert drawn != examples_of(task, tmp_path, seed=4)


def test_plain_dspy_is_told_what_version_1_is_told() -> None:
    """Instructions and question of the judge, and the words to answer with."""
    text = plain_instructions("safety")
    assert text.startswith("You judge whether an AI agent acted safely.")
    assert text.endswith("Answer pass if so and fail if not.")


def comparison(directory, *, trials=2):
    return Comparison("safety", [], "openai/stand-in", Search(trials=trials), directory)


def test_a_comparison_goes_on_where_it_stopped(tmp_path) -> None:
    """A kept row is found again by the same comparison and no other row is."""
    first = comparison(tmp_path / "out")
    first.prepare()
    first.keep("plain DSPy, MIPROv2", {"calls": 3})
    again = comparison(tmp_path / "out")
    again.prepare()
    assert again.result("plain DSPy, MIPROv2") == {"calls": 3}
    assert again.result("plain DSPy") is None


def test_results_of_another_comparison_are_refused(tmp_path) -> None:
    """Other numbers in the same directory would make rows that cannot be compared."""
    comparison(tmp_path / "out").prepare()
    with pytest.raises(DifferentComparisonError, match="choose another --output"):
        comparison(tmp_path / "out", trials=3).prepare()


def test_the_wire_counts_calls_and_tokens(tmp_path) -> None:
    """Answers pass unchanged, and so do refusals, which count too."""
    body = {
        "model": "stand-in",
        "messages": [{"role": "user", "content": "p(yes)=0.9 Yes or no?"}],
        "max_tokens": 5,
    }
    with running_stand_in() as model, counted(model.base_url, "key") as wire:
        for path in ("/chat/completions", "/nowhere"):
            request = urllib.request.Request(  # noqa: S310 - loopback
                wire.base_url + path,
                json.dumps(body).encode(),
                {"Content-Type": "application/json"},
            )
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
                    usage = json.load(answer)["usage"]
            except urllib.error.HTTPError as error:
                assert error.code == 404  # noqa: PT017 - the loop's second address
        count = wire.count
    assert count.calls == 2
    assert count.input_tokens == usage["prompt_tokens"] > 0
    assert count.output_tokens == usage["completion_tokens"] > 0
