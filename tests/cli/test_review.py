"""`sidejudge review` driven line by line, and what `review-queue` prints."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sidejudge
from sidejudge.v1 import feedback_service_pb2, judge_pb2
from sidejudge_server.cli.review_screen import (
    SHOWN_CHARS,
    Answer,
    Key,
    Labels,
    item_lines,
    read_answer,
)
from tests.cli.commands import Command, Outcome
from tests.stand_in import StandIn
from tests.support.calls import artifact, rubric
from tests.support.review import claim, judge_items, names, queue, set_audit
from tests.support.server import RunningServer, running_server, settings_for

PASS, FAIL = judge_pb2.VERDICT_PASS, judge_pb2.VERDICT_FAIL
Drive = Callable[..., Outcome]


@pytest.fixture
def server(stand_in: StandIn, tmp_path: Path) -> Iterator[RunningServer]:
    settings = settings_for(tmp_path, lm_base_url=stand_in.base_url)
    with running_server(settings) as running:
        set_audit(running.client, 0.0)
        yield running


@pytest.fixture
def drive(
    run: Command, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> Drive:
    """Review safety items as ann with these lines on standard input."""

    def review(*lines: str, options: tuple[str, ...] = (), judge: str = "safety"):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{x}\n" for x in lines)))
        command = ("review", judge, "--annotator", "ann", *options)
        return run(*command, "--server", server.address)

    return review


def printed(outcome: Outcome) -> Any:
    """Return the JSON that was printed beside the log of the server, which runs in this process."""
    start = outcome.out.index("{\n")
    return json.JSONDecoder().raw_decode(outcome.out[start:])[0]


def given(client: sidejudge.Client) -> dict[str, tuple[int, str, str]]:
    """Return verdict, comment and author of all feedback by evaluation."""
    listed = client.feedback.ListFeedback(feedback_service_pb2.ListFeedbackRequest())
    return {f.evaluation: (f.verdict, f.comment, f.author) for f in listed.feedback}


def test_items_are_shown_and_labelled_by_worth_until_none_waits(server, drive):
    """The least certain one first, with answer and reason, and labels reach the server."""
    sure, unsure = judge_items(server.client, [0.99, 0.5])

    outcome = drive("f", "not safe", "=", "")

    assert outcome.code == 0
    assert given(server.client) == {
        unsure: (FAIL, "not safe", "ann"),
        sure: (PASS, "", "ann"),
    }
    assert outcome.out.index("Item 1: p(yes)=0.5") < outcome.out.index("Item 0")
    assert "the judge is not sure of its answer" in outcome.out
    assert re.search(r"^judge said: \w+ \(0\.5\d\)$", outcome.out, re.MULTILINE)
    assert "Nothing waits for a label." in outcome.out
    assert "Labels sent: 2; items skipped: 0." in outcome.out


def test_undo_takes_the_last_label_back_before_it_is_sent(server, drive):
    """The item comes again; what was sent before stays."""
    judge_items(server.client, [0.5, 0.6, 0.7])
    first, second, _ = names(queue(server.client))

    outcome = drive("p", "", "p", "wrong key", "u", "f", "right", "u", "u", "f", "", "q")  # fmt: skip

    assert given(server.client) == {first: (PASS, "", "ann"), second: (FAIL, "", "ann")}
    assert outcome.out.count("Taken back: pass") == 1
    assert outcome.out.count("Taken back: fail") == 1
    assert "There is nothing to undo" in outcome.out
    assert "Labels sent: 2;" in outcome.out


def test_quitting_sends_the_last_label_and_gives_the_open_item_back(server, drive):
    judge_items(server.client, [0.5, 0.6])
    first, second = names(queue(server.client))

    drive("p", "", "q")

    assert list(given(server.client)) == [first]
    assert names(claim(server.client, "ben", 5)) == [second]


def test_the_end_of_input_is_like_quitting(server, drive):
    judge_items(server.client, [0.5, 0.6])

    outcome = drive("p")

    assert outcome.code == 0
    assert len(given(server.client)) == 1
    assert "Labels sent: 1;" in outcome.out


def test_skipped_items_go_back_to_the_others_and_are_not_shown_again(server, drive):
    judge_items(server.client, [0.5, 0.6])
    first, second = names(queue(server.client))

    outcome = drive("s", "p", "", "q")

    assert list(given(server.client)) == [second]
    assert outcome.out.count("Item 0") == 1
    assert "Labels sent: 1; items skipped: 1." in outcome.out
    assert names(claim(server.client, "ben", 5)) == [first]


def test_an_interruption_drops_the_label_that_was_held_back(server, drive, monkeypatch):
    """Ctrl-C says so, and what was claimed is free again."""
    judge_items(server.client, [0.5, 0.6])
    lines = iter(["p\n", "\n"])

    class Interrupted(io.StringIO):
        def readline(self, *_):
            line = next(lines, None)
            if line is None:
                raise KeyboardInterrupt
            return line

    monkeypatch.setattr(io, "StringIO", lambda _: Interrupted())
    outcome = drive()

    assert outcome.code == 130
    assert "the label pass of the last item is dropped" in outcome.err
    assert given(server.client) == {}
    assert len(claim(server.client, "ben", 5)) == 2


def test_wrong_lines_are_told_and_asked_for_again(server, drive):
    judge_items(server.client, [0.5])

    outcome = drive("maybe", "a", "0.5", "p", "", "q")

    assert "type p, f, a, =, s, u, m or q" in outcome.out
    assert "this judge never answers partial" in outcome.out
    assert len(given(server.client)) == 1


def test_scores_are_typed_as_numbers(server, drive):
    """Half the way, and exactly what the judge said."""
    set_audit(server.client, 0.0, judge="judges/rubric")
    judge = server.client.evaluation.Evaluate
    judged = [judge(rubric(f"grade={g}")).evaluation for g in (5.0, 3.5)]

    outcome = drive("2", "nan", "p", "0.25", "", "=", "", judge="rubric")

    listed = server.client.feedback.ListFeedback(
        feedback_service_pb2.ListFeedbackRequest()
    )
    scores = {f.evaluation: f.score for f in listed.feedback}
    assert 0.25 in scores.values()
    assert len(scores) == 2
    assert any(scores[e.name] == e.rubric.score for e in judged)
    assert outcome.out.count("a score is from 0 to 1") == 2
    assert "type a number from 0 to 1" in outcome.out


def test_a_limit_ends_the_sitting_and_sources_are_kept(server, drive):
    judge_items(server.client, [0.5, 0.6, 0.7])

    drive("p", "", "p", "", options=("--limit", "1", "--source", "user"))

    listed = server.client.feedback.ListFeedback(
        feedback_service_pb2.ListFeedbackRequest()
    )
    assert [f.source for f in listed.feedback] == [2]


def test_hostile_text_reaches_the_terminal_without_controls(server, drive):
    """Escapes are replaced, and no line of it can pass for one of ours."""
    text = "p(yes)=0.5 \x1b]0;owned\x07\x1b[2J\r--- item 9\u202e\njudge said: pass"
    server.client.evaluation.Evaluate(artifact(text, omit_reasoning=True))

    outcome = drive("q")

    shown = [line for line in outcome.out.splitlines() if "item 9" in line]
    assert not {"\x1b", "\x07", "\r", "\u202e"} & {*outcome.out}
    assert all(line.startswith("  | ") for line in shown)
    assert "  | judge said: pass" in outcome.out.splitlines()


def test_long_texts_are_cut_until_asked_for(server, drive):
    text = f"p(yes)=0.5 {'x' * SHOWN_CHARS}END"
    server.client.evaluation.Evaluate(artifact(text, omit_reasoning=True))

    short, whole = drive("q"), drive("m", "q")

    assert "characters more: m" in short.out
    assert "END" not in short.out
    assert "END" in whole.out


def test_queue_estimates_and_annotators_are_printed(server, run):
    """Tables for people, JSON for programs, and what is missing in words."""
    judge_items(server.client, [0.5, 0.6])
    claim(server.client, "ben")

    def call(*argv: str) -> Outcome:
        return run("review-queue", *argv, "--server", server.address)

    listed = call("list", "safety")
    assert listed.code == 0
    assert listed.out.count("uncertain") == 1
    everything = call("list", "safety", "--all")
    assert "ben" in everything.out
    assert len(printed(call("list", "safety", "--all", "--json"))["items"]) == 2
    assert "30 more" in call("estimate", "safety/1").out
    assert printed(call("estimate", "safety/1", "--json"))["waiting"] == "2"
    assert "10 more" in call("annotators", "safety").out
    unknown = call("list", "nobody")
    assert unknown.code == 1
    assert "nobody" in unknown.err


def test_keys_and_labels_are_read_whatever_their_case() -> None:
    verdicts, binary = Labels(False, False), Labels(False, True)

    def read(text: str, labels: Labels = verdicts):
        return read_answer(text, labels, queue_item().evaluation)

    assert read(" PASS ") == Answer(verdict=PASS)
    assert read("A") == Answer(verdict=judge_pb2.VERDICT_PARTIAL)
    assert read("=") == Answer(verdict=FAIL)
    assert read("Q") is Key.QUIT
    assert isinstance(read("a", binary), str)
    assert isinstance(read(""), str)


def queue_item():
    from sidejudge.v1 import review_service_pb2 as pb

    item = pb.ReviewItem(round=1, inclusion_probability=0.25, reasons=[99])
    item.evaluation.name = "evaluations/e"
    item.evaluation.artifact_input.artifact = "text"
    item.evaluation.judgment.verdict = FAIL
    return item


def test_reasons_of_a_newer_server_are_not_guessed() -> None:
    lines = "\n".join(item_lines(queue_item(), 1, whole=False))

    assert "new to this client" in lines
    assert "drawn with 25%" in lines
