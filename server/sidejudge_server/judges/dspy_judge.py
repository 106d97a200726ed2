"""Judges as DSPy modules, for optimizers. Imported in worker processes only.

DSPy chooses instructions and demonstrations; it does not get to write the prompt. The adapter
turns what DSPy holds into a `JudgeProgram` and sends it through the evaluator that serves, so an
optimized program is measured in exactly the words in which it will be asked.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import dspy

from sidejudge_server.judges.blocking import BlockingClient
from sidejudge_server.judges.codec import program_digest
from sidejudge_server.judges.decode import decide, stated_probabilities
from sidejudge_server.judges.fields import (
    field_names,
    input_from_fields,
    input_to_fields,
)
from sidejudge_server.judges.kinds import KINDS, JudgeSpec, initial_program
from sidejudge_server.judges.types import (
    ConfidenceSource,
    Demonstration,
    JudgeInput,
    JudgeKind,
    JudgeProgram,
    JudgeResult,
    Judgment,
    LabelOffsets,
    Verdict,
    VerdictProbabilities,
)

__all__ = [
    "KIND_SIGNATURES",
    "JudgeAdapter",
    "JudgeLM",
    "JudgeModule",
    "build_module",
    "example_from",
    "program_from_module",
    "signature_for",
]

_DESCRIPTIONS = {
    "task_context": "what the agent was asked to do",
    "agent_output": "what the agent made",
    "criteria": "what to look at, one criterion a line",
    "artifact": "what the agent made",
    "ground_truth": "what is known to be true; may be empty",
    "context": "what the agent was asked, or the situation it was in",
}


def signature_for(program: JudgeProgram) -> Any:  # noqa: ANN401 - dspy is untyped
    """Return the DSPy signature of a program: its fields, with its instructions."""
    fields: dict[str, Any] = {
        name: (str, dspy.InputField(desc=_DESCRIPTIONS.get(name, "a further input")))
        for name in field_names(
            scores=program.scores, input_fields=program.input_fields
        )
    }
    if program.scores:
        fields |= {
            "score": (float, dspy.OutputField(desc="0 (worst) to 1 (best)")),
            "reasoning": (str, dspy.OutputField(desc="why, in a sentence or two")),
            "suggestions": (list[str], dspy.OutputField(desc="what would improve it")),
        }
    else:
        verdicts: Any = (
            Literal["pass", "fail"]
            if program.binary
            else Literal["pass", "partial", "fail"]
        )
        fields |= {
            "judgment": (verdicts, dspy.OutputField(desc=program.question)),
            "confidence": (float, dspy.OutputField(desc="0 to 1")),
            "reasoning": (str, dspy.OutputField(desc="why, in a sentence or two")),
        }
    return dspy.Signature(fields, program.instructions)


KIND_SIGNATURES: Mapping[JudgeKind, Any] = {
    kind: signature_for(initial_program(JudgeSpec(kind))) for kind in KINDS
}
"""The signatures of the kinds, with their default instructions."""


class JudgeLM(dspy.BaseLM):  # type: ignore[misc] # dspy is untyped
    """What DSPy holds as its LM while it runs a judge; only `JudgeAdapter` can talk to it.

    DSPy's own cache, retries and history are not involved: metering, budgets and the call cache
    belong to the client underneath.
    """

    def __init__(self, client: BlockingClient) -> None:
        super().__init__(model=client.model, cache=False, num_retries=0)
        self.client = client

    def copy(self, **kwargs: object) -> JudgeLM:
        """Return itself: there are no parameters, and rollouts of a judge do not vary."""
        del kwargs
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> JudgeLM:
        """Return itself: a connection cannot be copied."""
        return self

    def forward(
        self,
        prompt: str | None = None,
        messages: list[dict[str, Any]] | None = None,
        **kwargs: object,
    ) -> None:
        """Refuse a call that did not come through the adapter."""
        raise NotImplementedError("a judge is asked through JudgeAdapter only")


class JudgeAdapter(dspy.Adapter):  # type: ignore[misc] # dspy is untyped
    """Asks a judge by our own renderer and decoder instead of DSPy's field markers.

    Args:
        base: All of the program but instructions and demonstrations, which DSPy holds.
        explain: True for reasoning and suggestions too, at the price of more tokens.
    """

    def __init__(self, base: JudgeProgram, *, explain: bool) -> None:
        super().__init__()
        self.base = base
        self.explain = explain

    def __call__(
        self,
        lm: JudgeLM,
        lm_kwargs: dict[str, Any],
        signature: Any,  # noqa: ANN401 - dspy is untyped
        demos: list[Any],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """Judge the inputs with the instructions and demonstrations that DSPy chose.

        Raises:
            LMError: The model did not deliver, or no answer was usable.
            RunCancelled: The run was cancelled.
        """
        del lm_kwargs
        program = _program(self.base, signature.instructions, demos)
        item = input_from_fields(program, inputs)
        # Asked without decision rule and head, which do not reach the prompt, because a rule can
        # be applied to what the model says but not taken out of what it became.
        plain = replace(program, offsets=LabelOffsets(), head=None)
        answer = lm.client.evaluate(plain, item, explain=self.explain)
        return [
            {
                **_outputs(program, answer.result),
                "program_fingerprint": program_digest(program),
            }
        ]


class JudgeModule(dspy.Module):  # type: ignore[misc] # dspy is untyped
    """A judge with one predictor, ``judge``. Needs a `JudgeLM` in DSPy's context."""

    def __init__(self, program: JudgeProgram, *, explain: bool = False) -> None:
        super().__init__()
        self.judge = dspy.Predict(signature_for(program))
        self.judge.demos = [_example(d) for d in program.demonstrations]
        self.base = replace(program, demonstrations=())
        self.explain = explain

    def forward(self, **inputs: str) -> Any:  # noqa: ANN401 - dspy is untyped
        """Judge one item, given as text by field name.

        Returns:
            A prediction with ``judgment`` (also as ``verdict``), ``confidence``,
            ``confidence_source`` and ``probabilities`` (by verdict, before the decision rule,
            None if there are none), or ``score``, ``raw_score`` (before the score map) and
            ``suggestions``; with ``reasoning`` and ``program_fingerprint`` in both cases.
        """
        adapter = JudgeAdapter(self.base, explain=self.explain)
        with dspy.context(adapter=adapter, disable_history=True):
            return self.judge(**inputs)


def build_module(program: JudgeProgram, *, explain: bool = False) -> JudgeModule:
    """Return a module that starts with a program's instructions and demonstrations."""
    return JudgeModule(program, explain=explain)


def program_from_module(module: JudgeModule, base: JudgeProgram) -> JudgeProgram:
    """Return the program that a module, perhaps an optimized copy, stands for.

    Args:
        module: Has the instructions and demonstrations.
        base: Has all the rest.
    """
    return _program(base, module.judge.signature.instructions, module.judge.demos)


def example_from(
    item: JudgeInput,
    *,
    verdict: Verdict | None = None,
    score: float | None = None,
    reasoning: str = "",
) -> Any:  # noqa: ANN401 - dspy is untyped
    """Return a labelled item as a DSPy example with its inputs marked."""
    return _example(Demonstration(item, verdict, score, reasoning))


def _example(demonstration: Demonstration) -> Any:  # noqa: ANN401 - dspy is untyped
    inputs = input_to_fields(demonstration.input)
    labels: dict[str, Any] = {"reasoning": demonstration.reasoning}
    if demonstration.verdict is not None:
        labels["judgment"] = labels["verdict"] = demonstration.verdict.value
    else:
        labels["score"] = demonstration.score
    return dspy.Example(**inputs, **labels).with_inputs(*inputs)


def _program(
    base: JudgeProgram, instructions: str, demos: Iterable[Any]
) -> JudgeProgram:
    # DSPy keeps instructions as a docstring, which loses indentation and outer blank lines.
    if instructions == inspect.cleandoc(base.instructions):
        instructions = base.instructions
    program = replace(base, instructions=instructions, demonstrations=())
    found = (_demonstration(program, demo) for demo in demos)
    return replace(program, demonstrations=tuple(d for d in found if d is not None))


def _demonstration(program: JudgeProgram, demo: Any) -> Demonstration | None:  # noqa: ANN401 - Example or dict
    """Return a demonstration from a labelled example or a bootstrapped trace.

    None if it has no usable label, as a trace of a failed call has none.
    """
    values = {key: demo[key] for key in demo.keys()}  # noqa: SIM118 - an Example iterates over values in no mapping's way
    item = input_from_fields(program, values)
    reasoning = str(values.get("reasoning") or "")
    if program.scores:
        score = values.get("score")
        if score is None:
            return None
        return Demonstration(
            item, score=min(1.0, max(0.0, float(score))), reasoning=reasoning
        )
    label = values.get("judgment") or values.get("verdict")
    if label is None:
        return None
    return Demonstration(item, verdict=Verdict(str(label)), reasoning=reasoning)


def _outputs(program: JudgeProgram, result: JudgeResult) -> dict[str, Any]:
    if not isinstance(result, Judgment):
        return {
            "score": result.score,
            "raw_score": result.raw_score,
            "reasoning": result.reasoning,
            "suggestions": list(result.suggestions),
        }
    probabilities = _probabilities(program, result)
    verdict, confidence = result.verdict, result.confidence
    if probabilities is not None:
        verdict, confidence = decide(probabilities, program.offsets, program.binary)
    return {
        "judgment": verdict.value,
        "verdict": verdict.value,
        "confidence": confidence,
        "confidence_source": result.confidence_source.value,
        "probabilities": _by_verdict(probabilities),
        "reasoning": result.reasoning if verdict is result.verdict else "",
    }


def _probabilities(
    program: JudgeProgram, judgment: Judgment
) -> VerdictProbabilities | None:
    """Return the probabilities of a judgment made without a decision rule."""
    if judgment.probabilities is not None:
        return judgment.probabilities
    if judgment.confidence_source is not ConfidenceSource.STATED:
        return None
    return stated_probabilities(
        judgment.verdict, judgment.confidence or 0.0, binary=program.binary
    )


def _by_verdict(
    probabilities: VerdictProbabilities | None,
) -> dict[str, float] | None:
    if probabilities is None:
        return None
    return {
        Verdict.PASS.value: probabilities.passed,
        Verdict.PARTIAL.value: probabilities.partial,
        Verdict.FAIL.value: probabilities.failed,
    }
