"""The steps of the demo, each one call or two of the contract, and what they tell."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import Progress

from sidejudge.v1 import (
    evaluation_pb2,
    evaluation_service_pb2,
    feedback_pb2,
    feedback_service_pb2,
    optimization_pb2,
)
from sidejudge_server.benchmark.labelled import LabelledExample
from sidejudge_server.benchmark.wire import VERDICTS, answer_of, evaluate_request
from sidejudge_server.cli.connection import Session
from sidejudge_server.cli.evaluate import answer_text
from sidejudge_server.cli.failures import CommandError
from sidejudge_server.cli.names import short
from sidejudge_server.cli.optimize import start
from sidejudge_server.cli.printing import key_values, say
from sidejudge_server.cli.status import describe_status
from sidejudge_server.cli.training import import_examples, print_training_set
from sidejudge_server.cli.watching import follow, open_view
from sidejudge_server.judges.types import Verdict

__all__ = [
    "Judged",
    "correct",
    "import_starter_data",
    "judge_sample",
    "optimise",
    "outcome_text",
    "show_readiness",
]

_AUTHOR = "sidejudge-demo"
# Scores nearer than this to the label count as right, as in the training set's disagreements.
_NEAR = 0.2


@dataclass(frozen=True, slots=True)
class Judged:
    """Evaluations of the items set aside, beside their labels.

    Attributes:
        pairs: The item and its evaluation, in no particular order.
        right: Items whose answer equals the label, or a score less than 0.2 away.
        lm_calls: Calls that it took.
    """

    pairs: tuple[tuple[LabelledExample, evaluation_pb2.Evaluation], ...]
    right: int
    lm_calls: int


def import_starter_data(
    session: Session, judge: str, examples: Sequence[LabelledExample]
) -> None:
    """Import labelled examples of a judge."""
    response = import_examples(session, f"judges/{judge}", examples)
    rejected = (
        f", {response.rejected_count} rejected" if response.rejected_count else ""
    )
    say(f"  {judge}: {response.imported_count} examples imported{rejected}")


def judge_sample(
    session: Session, judge: str, examples: Sequence[LabelledExample]
) -> Judged:
    """Judge the items set aside, the first one with its reasoning for show.

    Raises:
        CommandError: An item could not be judged.
    """
    requests = [_request(judge, example) for example in examples]
    requests[0].omit_reasoning = False
    evaluations: dict[int, evaluation_pb2.Evaluation] = {}
    with Progress(
        console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True
    ) as progress:
        task = progress.add_task("  judging", total=len(requests))
        for answer in session.client.evaluation.BatchEvaluate(
            evaluation_service_pb2.BatchEvaluateRequest(requests=requests),
            timeout=session.timeout_s,
        ):
            if answer.HasField("error"):
                raise CommandError(describe_status(answer.error))
            evaluations[answer.index] = answer.evaluation
            progress.advance(task)
    _show_first(examples[0], evaluations[0])
    pairs = tuple((examples[i], evaluation) for i, evaluation in evaluations.items())
    return Judged(
        pairs=pairs,
        right=sum(_right(example, evaluation) for example, evaluation in pairs),
        lm_calls=sum(e.usage.lm_calls for e in evaluations.values()),
    )


def correct(session: Session, judged: Judged) -> int:
    """Record the known label of every judged item, as a person would.

    Returns:
        How many were recorded.

    Raises:
        CommandError: The server refused one.
    """
    response = session.client.feedback.BatchRecordFeedback(
        feedback_service_pb2.BatchRecordFeedbackRequest(
            feedback=[_feedback(example, e) for example, e in judged.pairs]
        ),
        timeout=session.timeout_s,
    )
    if response.errors:
        raise CommandError(describe_status(response.errors[0].status))
    return int(response.recorded_count)


def show_readiness(session: Session, judge: str) -> feedback_pb2.TrainingSet:
    """Print and return what the judge has to learn from."""
    training_set: feedback_pb2.TrainingSet = session.client.feedback.GetTrainingSet(
        feedback_service_pb2.GetTrainingSetRequest(judge=f"judges/{judge}"),
        timeout=session.timeout_s,
    ).training_set
    print_training_set(training_set)
    return training_set


def optimise(
    session: Session, judge: str, config: optimization_pb2.OptimizationConfig
) -> optimization_pb2.Optimization:
    """Run an optimization that deploys if better, and show it live."""
    run = start(session, f"judges/{judge}", config, deploy_if_better=True)
    with open_view() as view:
        return follow(session, run.name, view)


def outcome_text(run: optimization_pb2.Optimization) -> str:
    """Say in a sentence what the result means for the judge, better or not."""
    serving = f"{short(run.baseline_version)} goes on serving."
    if run.state != optimization_pb2.Optimization.STATE_SUCCEEDED:
        return f"The run did not finish: nothing was compared, {serving}"
    if run.decision.deployed:
        return f"That passed the gate: {short(run.candidate_version)} serves now."
    if run.decision.stage == optimization_pb2.GateDecision.STAGE_SHADOW:
        return (
            f"That is promising: {short(run.candidate_version)} has to prove itself on later "
            f"corrections before it serves; until then {serving}"
        )
    return f"That did not pass the gate: nothing was deployed, {serving}"


def _request(
    judge: str, example: LabelledExample
) -> evaluation_service_pb2.EvaluateRequest:
    request = evaluate_request(f"judges/{judge}", example.input)
    request.group = example.group
    request.omit_reasoning = True
    request.labels["origin"] = "demo"
    return request


def _show_first(
    example: LabelledExample, evaluation: evaluation_pb2.Evaluation
) -> None:
    scored = evaluation.HasField("rubric")
    rubric, artifact = evaluation.rubric_input, evaluation.artifact_input
    key_values(
        [
            ("  context", rubric.task_context if scored else artifact.context),
            ("  artifact", rubric.agent_output if scored else artifact.artifact),
            ("  answer", answer_text(evaluation)),
            (
                "  reasoning",
                evaluation.rubric.reasoning
                if scored
                else evaluation.judgment.reasoning,
            ),
            ("  people say", str(example.label)),
        ]
    )


def _feedback(
    example: LabelledExample, evaluation: evaluation_pb2.Evaluation
) -> feedback_pb2.Feedback:
    feedback = feedback_pb2.Feedback(
        evaluation=evaluation.name,
        source=feedback_pb2.Feedback.SOURCE_EXPERT,
        author=_AUTHOR,
        comment=example.rationale,
    )
    if isinstance(example.label, Verdict):
        feedback.verdict = VERDICTS[example.label]
    else:
        feedback.score = example.label
    return feedback


def _right(example: LabelledExample, evaluation: evaluation_pb2.Evaluation) -> bool:
    answer = answer_of(evaluation)
    if isinstance(answer, float) and isinstance(example.label, float):
        return abs(answer - example.label) < _NEAR
    return answer == example.label
