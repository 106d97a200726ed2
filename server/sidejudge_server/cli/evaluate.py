"""`sidejudge evaluate` and `sidejudge evaluations`: judge an item, look at what was judged."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from sidejudge.v1 import evaluation_pb2, evaluation_service_pb2
from sidejudge_server.benchmark.labelled import parse_input
from sidejudge_server.benchmark.wire import VERDICTS, evaluate_request, verdict_word
from sidejudge_server.cli.connection import connect
from sidejudge_server.cli.failures import EXIT_USAGE, CommandError
from sidejudge_server.cli.names import evaluation_name, judge_name, short, version_name
from sidejudge_server.cli.paging import collect_pages
from sidejudge_server.cli.printing import (
    key_values,
    money,
    number,
    print_message,
    print_table,
    say,
)
from sidejudge_server.cli.trust import selection_words
from sidejudge_server.judges.types import JudgeInput, Verdict

__all__ = [
    "answer_text",
    "influence_words",
    "list_evaluations",
    "read_item",
    "run",
    "show_evaluation",
]

_TEXT_OPTIONS = ("artifact", "context", "ground_truth", "task_context", "agent_output")


def run(args: argparse.Namespace) -> int:
    """Judge one item and print the answer."""
    request = evaluate_request(judge_name(args.judge), read_item(args))
    request.omit_reasoning = args.no_reasoning
    request.subject = args.subject
    request.group = args.group
    request.labels.update(dict(args.label))
    request.n_samples = args.samples
    if args.target_agreement is not None:
        request.selection.target_agreement = args.target_agreement
        request.selection.assurance = args.assurance
    if args.version:
        request.judge_version = version_name(args.judge, args.version)
    with connect(args) as session:
        evaluation = session.client.evaluation.Evaluate(
            request, timeout=session.timeout_s
        ).evaluation
    if args.json:
        print_message(evaluation)
        return 0
    _print_evaluation(evaluation)
    option = "--score 0.5" if evaluation.HasField("rubric") else "--verdict pass|fail"
    say(f"\nWrong? sidejudge feedback {short(evaluation.name)} {option}")
    return 0


def list_evaluations(args: argparse.Namespace) -> int:
    """List evaluations, newest first."""
    request = evaluation_service_pb2.ListEvaluationsRequest(
        judge=judge_name(args.judge) if args.judge else ""
    )
    if args.verdict:
        request.verdict = VERDICTS[Verdict(args.verdict)]
    with connect(args) as session:
        page = collect_pages(
            session.client.evaluation.ListEvaluations,
            request,
            "evaluations",
            limit=args.limit,
            timeout_s=session.timeout_s,
        )
    if args.json:
        print_message(page)
        return 0
    print_table(
        ["evaluation", "judge", "answer", "subject", "time"],
        (
            (
                short(e.name),
                short(e.judge_version),
                answer_text(e),
                e.subject,
                f"{e.create_time.ToDatetime():%Y-%m-%d %H:%M:%S}",
            )
            for e in page.evaluations
        ),
    )
    return 0


def show_evaluation(args: argparse.Namespace) -> int:
    """Show one evaluation."""
    with connect(args) as session:
        evaluation = session.client.evaluation.GetEvaluation(
            evaluation_service_pb2.GetEvaluationRequest(
                name=evaluation_name(args.evaluation)
            ),
            timeout=session.timeout_s,
        ).evaluation
    if args.json:
        print_message(evaluation)
    else:
        _print_evaluation(evaluation)
    return 0


def answer_text(evaluation: evaluation_pb2.Evaluation) -> str:
    """Return the answer in a few words, such as `pass (0.83)` or `0.62`."""
    if evaluation.HasField("rubric"):
        return number(evaluation.rubric.score, digits=2)
    judgment = evaluation.judgment
    word = verdict_word(judgment.verdict)
    if judgment.HasField("confidence"):
        return f"{word} ({judgment.confidence:.2f})"
    return word


def _print_evaluation(evaluation: evaluation_pb2.Evaluation) -> None:
    rubric, judgment = evaluation.rubric, evaluation.judgment
    scored = evaluation.HasField("rubric")
    source = rubric.score_source if scored else judgment.confidence_source
    key_values(
        [
            ("score" if scored else "verdict", answer_text(evaluation)),
            (
                "± deviation",
                number(rubric.score_stddev, digits=2)
                if rubric.HasField("score_stddev")
                else None,
            ),
            ("from", _source_words(source)),
            *(
                (f"  {c.criterion}", number(c.score, digits=2))
                for c in rubric.criterion_scores
            ),
            ("reasoning", rubric.reasoning if scored else judgment.reasoning),
            *(("suggestion", s) for s in rubric.suggestions),
            *(("because of", influence_words(i)) for i in evaluation.influences),
            *selection_words(evaluation),
            ("judge", short(evaluation.judge_version)),
            ("evaluation", short(evaluation.name)),
            (
                "cost",
                _cost(evaluation.usage),
            ),
        ]
    )


def influence_words(influence: evaluation_pb2.Influence) -> str:
    """Return a correction that had to do with an answer, in a few words."""
    label = (
        verdict_word(influence.verdict)
        if influence.WhichOneof("label") == "verdict"
        else number(influence.score, digits=2)
    )
    words = f"{short(influence.training_example)}: {label}, {influence.similarity:.0%} similar"
    return f"{words}, weight {influence.weight:+.2f}" if influence.weight else words


def _cost(usage: evaluation_pb2.Usage) -> str:
    seconds = usage.lm_latency.ToTimedelta().total_seconds()
    cost = money(usage.cost_usd if usage.HasField("cost_usd") else None)
    return (
        f"{usage.lm_calls} calls of {usage.model}, {usage.input_tokens} +"
        f" {usage.output_tokens} tokens, {seconds:.1f} s, {cost}"
    )


def _source_words(source: evaluation_pb2.ConfidenceSource.ValueType) -> str | None:
    known = {
        evaluation_pb2.CONFIDENCE_SOURCE_LOGPROB: "token probabilities",
        evaluation_pb2.CONFIDENCE_SOURCE_STATED: "a number that the model wrote",
        evaluation_pb2.CONFIDENCE_SOURCE_SAMPLED: "the mean of several judgments",
        evaluation_pb2.CONFIDENCE_SOURCE_NONE: "the model's words; it gave no number",
    }
    return known.get(source)


def read_item(args: argparse.Namespace) -> JudgeInput:
    """Return the input from the file, overridden by the single options.

    Raises:
        CommandError: The file or the combination of options is wrong.
    """
    inputs: dict[str, object] = {}
    try:
        if args.file:
            inputs.update(_read_item(args.file))
        for option in _TEXT_OPTIONS:
            if getattr(args, option) is not None:
                inputs[option] = getattr(args, option)
        if args.field:
            inputs["fields"] = dict(args.field)
        if args.criterion:
            inputs["criteria"] = dict(args.criterion)
        return parse_input(inputs)
    except (OSError, ValueError) as error:
        raise CommandError(str(error), exit_code=EXIT_USAGE) from error


def _read_item(file: str) -> Mapping[str, object]:
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    item = json.loads(text)
    if not isinstance(item, dict):
        raise ValueError(f"{file} does not hold a JSON object")  # noqa: TRY004 - caught with the others
    nested = item.get("inputs")
    return nested if isinstance(nested, dict) else item
