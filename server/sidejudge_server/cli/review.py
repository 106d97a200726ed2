"""`sidejudge review`: label one item of the review queue after the other, line by line.

It reads and writes plain lines, so that it works over any connection, without a terminal, and from
scripts. Feedback is never overwritten, so the last label is held back until the next one is given.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from typing import Final

import grpc

import sidejudge
from sidejudge.v1 import feedback_pb2, feedback_service_pb2, judge_service_pb2
from sidejudge.v1 import review_service_pb2 as pb
from sidejudge_server.benchmark.wire import FEEDBACK_SOURCES
from sidejudge_server.cli.connection import Session, connect
from sidejudge_server.cli.names import judge_name, short
from sidejudge_server.cli.printing import clean, say, warn
from sidejudge_server.cli.review_screen import (
    Answer,
    Key,
    Labels,
    item_lines,
    read_answer,
)

__all__ = ["run"]

_MOST_CLAIMED: Final = 100
_COMMENT_CHARS: Final = 4_000
_OUTCOMES: Final = {
    pb.CLAIM_OUTCOME_EXPIRED: "recorded, but the claim had expired: somebody else may have got the item",
    pb.CLAIM_OUTCOME_HELD_BY_ANOTHER: "recorded, but somebody else holds the item now",
}


def run(args: argparse.Namespace) -> int:
    """Label items until there are none, enough, or the annotator quits."""
    with connect(args) as session:
        judge = session.client.judges.GetJudge(
            judge_service_pb2.GetJudgeRequest(name=judge_name(args.judge)),
            timeout=session.timeout_s,
        ).judge
        _Review(args, session, judge.name, Labels.of(judge)).run()
    return 0


@dataclass(frozen=True, slots=True)
class _Given:
    """A label that was not sent yet, with its item."""

    item: pb.ReviewItem
    answer: Answer
    comment: str


@dataclass(slots=True)
class _Counts:
    sent: int = 0
    skipped: int = 0


class _InputEndedError(Exception):
    """There are no more lines."""


@dataclass(slots=True)
class _Review:
    """One sitting of an annotator."""

    args: argparse.Namespace
    session: Session
    judge: str
    labels: Labels
    waiting: list[pb.ReviewItem] = field(default_factory=list)
    """Claimed and not shown, or to be shown again; the next one last."""
    held: _Given | None = None
    skipped: set[str] = field(default_factory=set)
    counts: _Counts = field(default_factory=_Counts)

    def run(self) -> None:
        """Show items and take labels; what is claimed and not labelled is given back at the end."""
        try:
            self._loop()
            self._send()
        finally:
            if self.held is not None:
                self.waiting.append(self.held.item)
                warn(f"the label {self.held.answer.words} of the last item is dropped")
            self._release([i.evaluation.name for i in self.waiting])
        say(f"Labels sent: {self.counts.sent}; items skipped: {self.counts.skipped}.")

    def _loop(self) -> None:
        shown = 0
        while self.args.limit is None or self._labelled < self.args.limit:
            if not self.waiting and not self._claim():
                say("Nothing waits for a label.")
                return
            shown += 1
            try:
                if not self._ask(self.waiting[-1], shown):
                    return
            except _InputEndedError:
                return

    @property
    def _labelled(self) -> int:
        return self.counts.sent + (self.held is not None)

    def _ask(self, item: pb.ReviewItem, number: int) -> bool:
        """Show an item and do what is typed; return whether to go on."""
        self._show(item, number)
        while True:
            found = read_answer(self._read(self.labels.prompt), self.labels, item.evaluation)  # fmt: skip
            match found:
                case str():
                    say(found)
                case Key.MORE:
                    self._show(item, number, whole=True)
                case Key.QUIT:
                    return False
                case Key.SKIP:
                    self._skip()
                    return True
                case Key.UNDO:
                    if self._undo():
                        return True
                case Answer():
                    self._take(item, found)
                    return True

    def _take(self, item: pb.ReviewItem, answer: Answer) -> None:
        """Hold a label back, and send the one before."""
        try:
            comment = self._read("reason (empty for none) > ").strip()
        except _InputEndedError:
            comment = ""
        before = self.held
        self.held = _Given(item, answer, comment[:_COMMENT_CHARS])
        self.waiting.pop()
        if before is not None:
            self._record(before)

    def _undo(self) -> bool:
        """Take the last label back and show its item again, if it was not sent."""
        if self.held is None:
            say("There is nothing to undo: labels before the last one are sent.")
            return False
        say(f"Taken back: {self.held.answer.words}.")
        self.waiting.append(self.held.item)
        self.held = None
        return True

    def _skip(self) -> None:
        item = self.waiting.pop()
        self.skipped.add(item.evaluation.name)
        self.counts.skipped += 1
        self._release([item.evaluation.name])

    def _claim(self) -> bool:
        """Claim the next item that was not skipped; return whether there is one."""
        known = set(self.skipped)
        if self.held is not None:
            known.add(self.held.item.evaluation.name)
        request = pb.ClaimReviewItemsRequest(
            judge=self.judge,
            annotator=self.args.annotator,
            # What is known comes again, and one more.
            max_items=min(_MOST_CLAIMED, len(known) + 1),
            annotators_per_item=self.args.annotators_per_item,
        )
        items = self._client.review.ClaimReviewItems(request, timeout=self._timeout_s).items  # fmt: skip
        self.waiting = [i for i in reversed(items) if i.evaluation.name not in known]
        again = [i.evaluation.name for i in items if i.evaluation.name in self.skipped]
        self._release(again)
        return bool(self.waiting)

    def _send(self) -> None:
        given, self.held = self.held, None
        if given is not None:
            self._record(given)

    def _record(self, given: _Given) -> None:
        evaluation = given.item.evaluation.name
        feedback = feedback_pb2.Feedback(
            evaluation=evaluation,
            source=FEEDBACK_SOURCES[self.args.source],
            author=self.args.annotator,
            comment=given.comment,
        )
        if given.answer.verdict is not None:
            feedback.verdict = given.answer.verdict
        else:
            feedback.score = given.answer.score or 0.0
        try:
            answer = self._client.feedback.RecordFeedback(
                feedback_service_pb2.RecordFeedbackRequest(feedback=feedback),
                timeout=self._timeout_s,
            )
        except grpc.RpcError:
            warn(f"the label {given.answer.words} of {evaluation} was not recorded")
            raise
        self.counts.sent += 1
        if (text := _OUTCOMES.get(answer.claim_outcome)) is not None:
            say(f"{short(evaluation)}: {text}.")

    def _release(self, evaluations: list[str]) -> None:
        """Give items back; if that fails the claims expire by themselves."""
        if not evaluations:
            return
        request = pb.ReleaseReviewItemsRequest(
            judge=self.judge, annotator=self.args.annotator, evaluations=evaluations
        )
        try:
            self._client.review.ReleaseReviewItems(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            reason = sidejudge.SidejudgeError.from_rpc_error(error).reason
            warn(f"the items could not be given back ({reason}); the claims expire")

    def _show(self, item: pb.ReviewItem, number: int, *, whole: bool = False) -> None:
        for line in item_lines(item, number, whole=whole):
            say(line)

    def _read(self, prompt: str) -> str:
        sys.stdout.write(clean(prompt))
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            say()
            raise _InputEndedError
        # Bytes that are no text cannot be sent.
        return line.encode("utf-8", "replace").decode()

    @property
    def _client(self) -> sidejudge.Client:
        return self.session.client

    @property
    def _timeout_s(self) -> float:
        return self.session.timeout_s
