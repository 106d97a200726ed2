"""`sidejudge feedback`: correct or confirm an evaluation."""

from __future__ import annotations

import argparse

from sidejudge.v1 import feedback_pb2, feedback_service_pb2
from sidejudge_server.benchmark.wire import FEEDBACK_SOURCES, VERDICTS
from sidejudge_server.cli.connection import connect
from sidejudge_server.cli.names import evaluation_name, short
from sidejudge_server.cli.printing import print_message, say
from sidejudge_server.judges.types import Verdict

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Record the feedback and say what it is for."""
    feedback = feedback_pb2.Feedback(
        evaluation=evaluation_name(args.evaluation),
        source=FEEDBACK_SOURCES[args.source],
        author=args.author,
        comment=args.comment,
    )
    if args.verdict is not None:
        feedback.verdict = VERDICTS[Verdict(args.verdict)]
    else:
        feedback.score = args.score
    with connect(args) as session:
        recorded = session.client.feedback.RecordFeedback(
            feedback_service_pb2.RecordFeedbackRequest(feedback=feedback),
            timeout=session.timeout_s,
        ).feedback
    if args.json:
        print_message(recorded)
    else:
        judge = short(recorded.judge)
        say(f"{recorded.name} is recorded and teaches {judge}.")
        say(f"`sidejudge training {judge}` shows what {judge} has to learn from.")
    return 0
