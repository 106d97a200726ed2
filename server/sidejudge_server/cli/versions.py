"""`sidejudge versions`: compare versions, and carry them from one sidecar to another."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sidejudge.v1 import judge_pb2, judge_service_pb2
from sidejudge_server.benchmark.wire import verdict_word
from sidejudge_server.cli.connection import Session, connect
from sidejudge_server.cli.failures import EXIT_USAGE, CommandError
from sidejudge_server.cli.names import judge_name, short, version_reference
from sidejudge_server.cli.printing import (
    number,
    print_json,
    print_message,
    print_table,
    say,
)

__all__ = ["Difference", "diff", "differences", "export_file", "import_file"]

_NONE = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """A part in which two versions differ; "" on a side that has none."""

    part: str
    left: str
    right: str


def diff(args: argparse.Namespace) -> int:
    """Show side by side in what two versions differ."""
    with connect(args) as session:
        left = _version(session, version_reference(args.left))
        right = _version(session, version_reference(args.right))
    found = list(differences(left, right))
    if args.json:
        print_json(
            {
                "left": left.name,
                "right": right.name,
                "differences": [asdict(difference) for difference in found],
            }
        )
    elif found:
        print_table(
            ["", short(left.name), short(right.name)],
            ((d.part, d.left or None, d.right or None) for d in found),
        )
    else:
        say(f"{short(left.name)} and {short(right.name)} answer alike.")
    return 0


def export_file(args: argparse.Namespace) -> int:
    """Write a version as one JSON document to a file, or to standard output for ``-``."""
    name = version_reference(args.version)
    with connect(args) as session:
        document = session.client.judges.ExportJudgeVersion(
            judge_service_pb2.ExportJudgeVersionRequest(name=name),
            timeout=session.timeout_s,
        ).document
    if args.file == "-":
        sys.stdout.write(document)
        return 0
    try:
        Path(args.file).write_text(document, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{args.file}: {error}", exit_code=EXIT_USAGE) from error
    say(f"{short(name)} is in {args.file}.")
    return 0


def import_file(args: argparse.Namespace) -> int:
    """Add the version of a document to a judge; it does not serve until it is deployed."""
    try:
        document = (
            sys.stdin.read()
            if args.file == "-"
            else Path(args.file).read_text(encoding="utf-8")
        )
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{args.file}: {error}", exit_code=EXIT_USAGE) from error
    request = judge_service_pb2.ImportJudgeVersionRequest(
        parent=judge_name(args.judge), document=document
    )
    with connect(args) as session:
        version = session.client.judges.ImportJudgeVersion(
            request, timeout=session.timeout_s
        ).judge_version
    if args.json:
        print_message(version)
    else:
        number_of = version.name.rpartition("/")[2]
        say(
            f"{short(version.name)} was added; it was {version.imported_from} where it comes"
            f" from. `sidejudge judges deploy {args.judge} {number_of}` makes it serve."
        )
    return 0


def differences(
    left: judge_pb2.JudgeVersion, right: judge_pb2.JudgeVersion
) -> Iterator[Difference]:
    """Yield the parts in which two versions differ: how they answer first, then their lineage."""
    ours, theirs = dict(_parts(left)), dict(_parts(right))
    for part in [*ours, *(p for p in theirs if p not in ours)]:
        before, after = ours.get(part, _NONE), theirs.get(part, _NONE)
        if before != after:
            yield Difference(part, before, after)


def _parts(version: judge_pb2.JudgeVersion) -> Iterator[tuple[str, str]]:
    """Yield names and texts of all that a version is made of; equal parts have equal names."""
    yield "instructions", version.instructions
    yield "question", version.question
    if version.HasField("decision_rule"):
        rule = version.decision_rule
        yield "pass offset, nats", f"{rule.pass_offset:+.3f}"
        yield "partial offset, nats", f"{rule.partial_offset:+.3f}"
    if version.HasField("score_map"):
        score_map = version.score_map
        yield "score map", f"{score_map.intercept:.3f} + {score_map.slope:.3f} * raw"
    if version.HasField("head"):
        yield "learned head", _compact(version.head)
    memory = version.memory
    for guideline in memory.guidelines:
        yield f"guideline: {guideline}", "yes"
    if version.HasField("memory"):
        yield "remembered examples", str(memory.example_count or len(memory.examples))
        yield "of these in the prompt", str(memory.shown)
    for demonstration in version.demonstrations:
        inputs = " | ".join(
            f"{name}: {text}" for name, text in sorted(demonstration.inputs.items())
        )
        yield f"demonstration: {inputs}", _answer(demonstration)
    for name, value in sorted(version.metrics.items()):
        yield name, number(value)
    yield "model", version.model
    yield "data digest", version.data_digest[:12]
    yield "parent", version.parent and short(version.parent)
    yield "optimization", version.optimization and short(version.optimization)
    yield "imported from", version.imported_from


def _answer(demonstration: judge_pb2.Demonstration) -> str:
    answer = (
        verdict_word(demonstration.verdict)
        if demonstration.HasField("verdict")
        else number(demonstration.score, digits=2)
    )
    reasoning = demonstration.reasoning
    return f"{answer}: {reasoning}" if reasoning else answer


def _compact(head: judge_pb2.LearnedHead) -> str:
    model = getattr(head, head.WhichOneof("model") or "verdict")
    weights = (
        f"{field.name} {getattr(model, field.name):+.3f}"
        for field in model.DESCRIPTOR.fields
    )
    return f"{head.neighbours} neighbours, " + ", ".join(weights)


def _version(session: Session, name: str) -> judge_pb2.JudgeVersion:
    found: judge_pb2.JudgeVersion = session.client.judges.GetJudgeVersion(
        judge_service_pb2.GetJudgeVersionRequest(name=name), timeout=session.timeout_s
    ).judge_version
    return found
