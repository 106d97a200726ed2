"""GEPA with what a service needs: checked instructions, our own model clients, a bound on every loop.

Instructions evolve: the judge answers a few training examples, a model reads where it went wrong and
what people said about it, and writes a better instruction; one that does better on those examples is
scored on all validation examples and may be a parent of the next. Parents are those that are best at
some validation example, so that different strengths survive.

Beside `optimization.mipro` the only importer of ``dspy.teleprompt``; dspy brings the ``gepa`` package
with it (pinned there). What we add to ``dspy.GEPA``:

* The feedback is the label, what the judge said with which probability, and the reason that a person
  gave with the correction.
* Every proposal is checked by `proposals.check_instruction` before it is tried.
* The model that reflects sees inputs, answers and reasons clipped and neutralised, and is asked through the run's own client: its answers
  are metered, cached and cancelled like all others, so that the same seed and cache give the same run.
* A proposal that fails costs itself only; what ends a run is a BaseException and passes through.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import dspy
from dspy.teleprompt import GEPA
from dspy.teleprompt.gepa.instruction_proposal import InstructionProposer

from sidejudge_server.optimization.plan import (
    GEPA_MINIBATCH,
    GEPA_PROPOSALS_PER_TRIAL,
    SearchPlan,
)
from sidejudge_server.optimization.proposals import Proposal, check_instruction
from sidejudge_server.optimization.proposer_view import prompt_tags, shown

__all__ = ["EvolutionObserver", "evolve"]

Dspy = Any
"""A module, example, LM or state: dspy and gepa publish no types."""

_SHOWN_OUTPUTS = ("judgment", "score", "confidence", "reasoning")
_GOOD_ENOUGH = 0.95
"""Examples that all score this much teach nothing; no proposal is asked for."""

_GUIDANCE = (
    "The assistant is a judge of what an agent made. Say what it should look at and how to decide "
    "between its possible answers; the form of the answer is asked for elsewhere. Write general "
    "rules, do not copy the examples, and do not use placeholders or field markers. At most 3,000 "
    "characters."
)


class EvolutionObserver(Protocol):
    """Who wants to know how an evolution goes. Called from the thread that searches."""

    def proposed(self, proposal: Proposal) -> None:
        """An instruction competes or was refused."""
        ...

    def scored(self, instructions: str, *, index: int) -> None:
        """An instruction was scored on all validation examples."""
        ...

    def warning(self, message: str) -> None:
        """Something that does not stop the search."""
        ...


def evolve(
    module: Dspy,
    *,
    train: Sequence[Dspy],
    validation: Sequence[Dspy],
    metric: Callable[[Dspy, Dspy], float | bool],
    task_lm: Dspy,
    reflection_lm: Dspy,
    plan: SearchPlan,
    observer: EvolutionObserver,
) -> None:
    """Evolve the instructions of a module; its demonstrations stay.

    Ends after ``plan.num_trials`` instructions were scored on all validation examples, or after
    `GEPA_PROPOSALS_PER_TRIAL` proposals for each of them.

    Args:
        module: The version to start from.
        train: dspy examples to reflect on, with ``reasoning`` if people gave a reason.
        validation: dspy examples to score on.
        metric: Soft metric of an example and a prediction, 0..1.
        task_lm: Judges.
        reflection_lm: Writes instructions.
        plan: Numbers.
        observer: Hears of everything.
    """
    if not train or not validation:
        observer.warning("there are no examples to reflect on")
        return
    current = module.predictors()[0].signature.instructions
    tags = prompt_tags(module.predictors()[0].signature.input_fields)
    proposer = _CheckedProposer(current, observer, tags=tags)
    callback = _Callback(proposer, observer)
    with dspy.context(lm=task_lm):
        GEPA(
            metric=_feedback_metric(metric, tags=tags),
            max_metric_calls=_metric_calls(plan, len(validation)),
            reflection_minibatch_size=GEPA_MINIBATCH,
            reflection_lm=reflection_lm,
            instruction_proposer=proposer,
            # There is one predictor, and merging combines those of several.
            use_merge=False,
            num_threads=plan.num_threads,
            perfect_score=_GOOD_ENOUGH,
            warn_on_score_mismatch=False,
            seed=plan.seed,
            gepa_kwargs={
                "callbacks": [callback],
                "stop_callbacks": [_stopper(plan)],
            },
        ).compile(module, trainset=list(train), valset=list(validation))
    if callback.fault is not None:
        raise callback.fault
    if proposer.failures:
        observer.warning(
            f"{proposer.failures} proposals of the prompt model could not be read and were passed over"
        )


class _CheckedProposer(InstructionProposer):  # type: ignore[misc]  # dspy has no type information
    """Asks for a new instruction and lets only usable ones compete."""

    def __init__(
        self, current: str, observer: EvolutionObserver, *, tags: frozenset[str]
    ) -> None:
        super().__init__(additional_instructions=_GUIDANCE, adapter=dspy.ChatAdapter())
        self._observer = observer
        self._tags = tags
        self._taken = [current]
        self.failures = 0

    def index_of(self, instructions: str) -> int:
        """Return the index of an instruction that competes; 0 is the current one."""
        return self._taken.index(instructions)

    def __call__(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        """Return a checked instruction by component, nothing if there is none."""
        records_shown = {
            name: [_shown(record, tags=self._tags) for record in records]
            for name, records in reflective_dataset.items()
        }
        try:
            proposed = super().__call__(candidate, records_shown, components_to_update)
        except Exception:  # noqa: BLE001 - a proposal that cannot be read is one fewer, nothing worse
            # Raised on, it would be asked for a second time.
            self.failures += 1
            return {}
        return {
            name: text
            for name, raw in proposed.items()
            # As dspy keeps instructions, so that what is scored is what is kept.
            if self._competes(text := inspect.cleandoc(raw))
        }

    def _competes(self, text: str) -> bool:
        refusal = check_instruction(text, taken=self._taken)
        index = -1 if refusal else len(self._taken)
        self._observer.proposed(Proposal(text, index, refusal))
        if not refusal:
            self._taken.append(text)
        return not refusal


class _Callback:
    """Hears of evaluations; gepa swallows what callbacks raise, so a fault is kept for later."""

    def __init__(self, proposer: _CheckedProposer, observer: EvolutionObserver) -> None:
        self._proposer = proposer
        self._observer = observer
        self.fault: Exception | None = None

    def on_valset_evaluated(self, event: Mapping[str, Any]) -> None:
        """Report a candidate that was scored on everything; iteration 0 is the starting version."""
        if event["iteration"] == 0:
            return
        (instructions,) = event["candidate"].values()
        try:
            self._observer.scored(
                instructions,
                index=self._proposer.index_of(instructions),
            )
        except Exception as fault:  # noqa: BLE001 - raised when the search has ended, see above
            self.fault = self.fault or fault


def _feedback_metric(
    metric: Callable[[Dspy, Dspy], float | bool], *, tags: frozenset[str]
) -> Callable[..., Dspy]:
    def rate(
        gold: Dspy,
        pred: Dspy,
        trace: Dspy = None,
        pred_name: str | None = None,
        pred_trace: Dspy = None,
    ) -> Dspy:
        score = float(metric(gold, pred))
        if pred_name is None:
            return score
        return dspy.Prediction(score=score, feedback=_feedback(gold, pred, tags=tags))

    return rate


def _feedback(gold: Dspy, prediction: Dspy, *, tags: frozenset[str]) -> str:
    """Say what the label is, how far the judge was off, and the reason that came with it."""
    label = gold.get("judgment")
    if label is not None:
        answered = prediction.get("judgment")
        sure = (prediction.get("probabilities") or {}).get(label)
        text = (
            f"Right: the label is {label} too."
            if answered == label
            else f"Wrong: the judge said {answered}, the label is {label}."
        )
        if sure is not None:
            text += f" It gave the right answer a probability of {sure:.2f}."
    else:
        text = f"The judge's score was {prediction.get('score')}, the label is {gold.get('score')}."
    reason = str(gold.get("reasoning") or "").strip()
    return f"{text} The reason given: {shown(reason, tags=tags)}" if reason else text


def _shown(record: Mapping[str, Any], *, tags: frozenset[str]) -> dict[str, Any]:
    """Return what the model that reflects sees of an answer."""
    outputs = record["Generated Outputs"]
    return {
        "Inputs": {
            name: shown(str(value), tags=tags)
            for name, value in record["Inputs"].items()
            if value
        },
        "Generated Outputs": {
            name: shown(str(outputs[name]), tags=tags)
            for name in _SHOWN_OUTPUTS
            if outputs.get(name) not in {None, ""}
        },
        "Feedback": record["Feedback"],
    }


def _stopper(plan: SearchPlan) -> Callable[[Dspy], bool]:
    def stop(state: Dspy) -> bool:
        # Counted from -1; the starting version is a candidate too.
        proposals = state.i + 1
        scored = len(state.program_candidates) - 1
        return bool(
            scored >= plan.num_trials
            or proposals >= GEPA_PROPOSALS_PER_TRIAL * plan.num_trials
        )

    return stop


def _metric_calls(plan: SearchPlan, validation_count: int) -> int:
    """Return how many answers may be looked at: the stopper stops before, this is the last resort."""
    each = GEPA_PROPOSALS_PER_TRIAL * 2 * GEPA_MINIBATCH + validation_count
    return validation_count + plan.num_trials * each
