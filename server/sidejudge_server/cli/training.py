"""`sidejudge training`, `import`, `export`: what a judge learns from."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from sidejudge.v1 import feedback_pb2, feedback_service_pb2
from sidejudge_server.benchmark.labelled import (
    LabelledDataError,
    LabelledExample,
    parse_row,
    read_jsonl,
    with_own_key,
)
from sidejudge_server.benchmark.wire import example_message, example_row
from sidejudge_server.cli.connection import Session, connect
from sidejudge_server.cli.failures import EXIT_USAGE, CommandError
from sidejudge_server.cli.names import judge_name, short
from sidejudge_server.cli.paging import collect_pages
from sidejudge_server.cli.printing import (
    key_values,
    print_message,
    print_table,
    say,
    warn,
)

__all__ = [
    "export_file",
    "import_examples",
    "import_file",
    "print_training_set",
    "read_examples",
    "show",
    "synthesize",
]

_MAX_EXAMPLES_PER_MESSAGE = 1000
_MAX_BYTES_PER_MESSAGE = 4 * 1024 * 1024
_SHOWN_CHARS = 60


def show(args: argparse.Namespace) -> int:
    """Show the training set, or its examples."""
    judge = judge_name(args.judge)
    with connect(args) as session:
        if args.examples:
            return _list_examples(args, session, judge)
        training_set = session.client.feedback.GetTrainingSet(
            feedback_service_pb2.GetTrainingSetRequest(judge=judge),
            timeout=session.timeout_s,
        ).training_set
    if args.json:
        print_message(training_set)
    else:
        print_training_set(training_set)
    return 0


def synthesize(args: argparse.Namespace) -> int:
    """Have a language model write examples; what was written is said with what it took."""
    with connect(args) as session:
        made = session.client.feedback.SynthesizeTrainingExamples(
            feedback_service_pb2.SynthesizeTrainingExamplesRequest(
                judge=judge_name(args.judge),
                max_count=args.count,
                max_lm_calls=args.max_lm_calls,
            ),
            timeout=session.timeout_s,
        )
    if args.json:
        print_message(made)
        return 0
    say(
        f"{made.created_count} synthetic examples written in {made.lm_calls} LM calls,"
        f" {len(made.rejected)} rejected, {made.unreadable_count} of no use."
    )
    for rejected in made.rejected:
        reason = feedback_pb2.TrainingExample.Rejection.Name(rejected.rejection)
        say(f"  {reason.removeprefix('REJECTION_')}: {rejected.detail}")
    if made.stopped_by:
        say(f"No more because {made.stopped_by}.")
    print_training_set(made.training_set)
    return 0


def import_file(args: argparse.Namespace) -> int:
    """Import a file; nothing is sent if any of its rows is wrong."""
    examples = _real(read_examples(args.file))
    with connect(args) as session:
        response = import_examples(session, judge_name(args.judge), examples)
    if args.json:
        print_message(response)
        return 0
    say(f"{response.imported_count} imported, {response.rejected_count} rejected.")
    for rejected in response.rejected:
        key = examples[rejected.index].key if rejected.index < len(examples) else "?"
        reason = feedback_pb2.TrainingExample.Rejection.Name(rejected.rejection)
        say(f"  {key}: {reason.removeprefix('REJECTION_')}: {rejected.detail}")
    print_training_set(response.training_set)
    return 0


def import_examples(
    session: Session, judge: str, examples: Iterable[LabelledExample]
) -> feedback_service_pb2.ImportTrainingExamplesResponse:
    """Send examples in messages that the server accepts.

    Raises:
        CommandError: An example cannot be a message.
    """
    try:
        messages = [example_message(e) for e in examples]
    except ValueError as error:
        raise CommandError(str(error), exit_code=EXIT_USAGE) from error
    response: feedback_service_pb2.ImportTrainingExamplesResponse
    response = session.client.feedback.ImportTrainingExamples(
        _requests(judge, messages), timeout=session.timeout_s
    )
    return response


def export_file(args: argparse.Namespace) -> int:
    """Write the examples, one JSON object a line, as `import` reads them."""
    request = feedback_service_pb2.ExportTrainingExamplesRequest(
        judge=judge_name(args.judge), include_rejected=args.rejected
    )
    count = 0
    with connect(args) as session, _writable(args.file) as out:
        for part in session.client.feedback.ExportTrainingExamples(
            request, timeout=session.timeout_s
        ):
            for example in part.training_examples:
                # ASCII only: what was judged may hold control characters.
                out.write(json.dumps(example_row(example)) + "\n")
                count += 1
    warn(f"{count} examples exported.")
    return 0


def read_examples(path: Path) -> list[LabelledExample]:
    """Read a JSONL or Parquet file of labelled examples.

    Raises:
        CommandError: It cannot be read, or rows are wrong; all problems are named.
    """
    try:
        if path.suffix == ".parquet":
            return list(_read_parquet(path))
        return read_jsonl(path)
    except (OSError, UnicodeDecodeError, LabelledDataError) as error:
        raise CommandError(f"{path}: {error}", exit_code=EXIT_USAGE) from error


def print_training_set(training_set: feedback_pb2.TrainingSet) -> None:
    """Print counts, balance, rejections and readiness."""
    readiness = feedback_pb2.TrainingSet.Readiness.Name(training_set.readiness)
    key_values(
        [
            ("judge", short(training_set.judge)),
            (
                "readiness",
                readiness.removeprefix("READINESS_").replace("_", " ").lower(),
            ),
            (
                "examples",
                (
                    f"{training_set.example_count} in {training_set.group_count} groups:"
                    f" {training_set.train_count} train,"
                    f" {training_set.validation_count} validation,"
                    f" {training_set.test_count} test"
                ),
            ),
            (
                "labels",
                ", ".join(
                    f"{k} {n}" for k, n in sorted(training_set.label_counts.items())
                ),
            ),
            ("synthetic", training_set.synthetic_count or None),
            ("disagreements", training_set.disagreement_count),
            (
                "rejected",
                ", ".join(
                    f"{_rejection(r.rejection)} {r.count}"
                    for r in training_set.rejections
                ),
            ),
            *(("problem", text) for text in training_set.problems),
            *(("warning", text) for text in training_set.warnings),
        ]
    )


def _real(examples: list[LabelledExample]) -> list[LabelledExample]:
    """Leave synthetic examples out: what an export marks must not come back as somebody's label."""
    real = [example for example in examples if example.origin != "synthetic"]
    if len(real) < len(examples):
        warn(f"{len(examples) - len(real)} synthetic examples are left out.")
    return real


def _list_examples(args: argparse.Namespace, session: Session, judge: str) -> int:
    request = feedback_service_pb2.ListTrainingExamplesRequest(
        judge=judge, show_rejected=args.rejected
    )
    if args.split:
        request.split = feedback_pb2.TrainingExample.Split.Value(
            f"SPLIT_{args.split.upper()}"
        )
    page = collect_pages(
        session.client.feedback.ListTrainingExamples,
        request,
        "training_examples",
        limit=args.limit,
        timeout_s=session.timeout_s,
    )
    if args.json:
        print_message(page)
        return 0
    rows = [example_row(e) for e in page.training_examples]
    print_table(
        ["example", "label", "split", "origin", "rejected", "input"],
        (
            (
                row["id"],
                row["label"],
                row["split"],
                row["origin"],
                row.get("rejection"),
                _first_words(row["inputs"]),
            )
            for row in rows
        ),
    )
    return 0


def _first_words(inputs: dict[str, str]) -> str:
    text = " ".join((inputs.get("artifact") or inputs.get("agent_output", "")).split())
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


def _rejection(number: feedback_pb2.TrainingExample.Rejection.ValueType) -> str:
    name = feedback_pb2.TrainingExample.Rejection.Name(number)
    return name.removeprefix("REJECTION_").replace("_", " ").lower()


def _requests(
    judge: str, messages: list[feedback_pb2.TrainingExample]
) -> Iterator[feedback_service_pb2.ImportTrainingExamplesRequest]:
    """Pack examples; an empty import still names its judge."""
    request = feedback_service_pb2.ImportTrainingExamplesRequest(judge=judge)
    size = 0
    for message in messages:
        full = len(request.training_examples) >= _MAX_EXAMPLES_PER_MESSAGE
        if full or (size and size + message.ByteSize() > _MAX_BYTES_PER_MESSAGE):
            yield request
            request = feedback_service_pb2.ImportTrainingExamplesRequest(judge=judge)
            size = 0
        request.training_examples.append(message)
        size += message.ByteSize()
    yield request


def _read_parquet(path: Path) -> Iterator[LabelledExample]:
    if not path.is_file():
        raise FileNotFoundError("no such file")
    import duckdb

    problems: list[str] = []
    examples: list[LabelledExample] = []
    keys: set[str] = set()
    with duckdb.connect(":memory:") as connection:
        try:
            relation = connection.execute("SELECT * FROM read_parquet(?)", [str(path)])
            columns = [column[0] for column in relation.description]
            rows = relation.fetchall()
        except duckdb.Error as error:
            raise LabelledDataError([f"no readable Parquet file: {error}"]) from error
    for place, row in enumerate(rows, start=1):
        try:
            where = f"row {place}"
            example = parse_row(dict(zip(columns, row, strict=True)), place=where)
            examples.append(with_own_key(example, place=where, taken=keys))
        except LabelledDataError as error:
            problems += error.problems
    if problems:
        raise LabelledDataError(problems)
    yield from examples


def _writable(file: str) -> nullcontext[IO[str]] | IO[str]:
    if file == "-":
        return nullcontext(sys.stdout)
    try:
        return Path(file).open("w", encoding="utf-8")
    except OSError as error:
        raise CommandError(str(error), exit_code=EXIT_USAGE) from error
