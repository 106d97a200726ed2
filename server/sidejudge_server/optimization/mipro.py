"""MIPROv2 with what a service needs: events per trial, a stop, honest seeds, checked instructions.

Beside `optimization.gepa` the only importer of ``dspy.teleprompt``. Written against dspy 3.4; overrides are of methods with a
leading underscore, so the dependency is pinned below 3.5 and `tests/optimization/test_worker.py` runs
the real thing. What differs from the original:

* Scores and combinations are reported as they come, full evaluations between minibatches included.
* The proposer sees examples clipped and neutralised.
* The module is never sent to a model as source code, and demonstration sets keep to a size.
* Instructions are checked before they compete; curated ones stand in.
* The demonstrations of the version that serves are one of the candidate sets (the original forgets
  them and starts from none).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dspy
from dspy.propose import GroundedProposer
from dspy.propose.grounded_proposer import TIPS
from dspy.teleprompt import MIPROv2

from sidejudge_server.judges.neutralize import neutralize
from sidejudge_server.optimization.plan import (
    MINIBATCH_FULL_STEPS,
    InstructionSource,
    SearchPlan,
)
from sidejudge_server.optimization.proposals import Proposal, select_instructions
from sidejudge_server.optimization.proposer_view import prompt_tags, shown
from sidejudge_server.optimization.racing import Race
from sidejudge_server.optimization.spec import Phase

__all__ = ["SearchObserver", "SearchTrial", "StreamingMIPRO"]

Dspy = Any
"""A module, example, LM or study: dspy and optuna publish no types."""

_PROPOSER_EXAMPLES = 30
_PROPOSER_BATCH = 5
"""What the proposer sees of the data: enough for a summary, short enough for any context."""
_NEVER = 10**9
"""Errors to tolerate: `metering` decides what ends a run, DSPy's own count must not."""


@dataclass(frozen=True, slots=True)
class SearchTrial:
    """One scored combination.

    Attributes:
        score: Mean metric, 0..1.
        example_count: Validation examples looked at.
        full: True if those were all.
        instruction_index: 0 is the current instruction.
        demo_set_index: 0 is none.
        module: The candidate; only the caller's own module functions read it.
        stopped_early: True if it was dropped before all its examples were looked at.
    """

    score: float
    example_count: int
    full: bool
    instruction_index: int
    demo_set_index: int
    module: Dspy
    stopped_early: bool


class SearchObserver(Protocol):
    """Who wants to know how a search goes. Called from the thread that searches."""

    def phase(self, phase: Phase) -> None:
        """Another phase begins."""
        ...

    def proposed(self, proposal: Proposal) -> None:
        """An instruction competes or was refused."""
        ...

    def trial(self, trial: SearchTrial) -> None:
        """A trial ended."""
        ...

    def warning(self, message: str) -> None:
        """Something that does not stop the search."""
        ...

    def should_stop(self) -> bool:
        """Whether to end the search after this trial, with the best so far."""
        ...


class StreamingMIPRO(MIPROv2):  # type: ignore[misc]  # dspy has no type information
    """Search instructions and demonstration sets; see the module."""

    def __init__(
        self,
        *,
        metric: Callable[..., float | bool],
        task_lm: Dspy,
        prompt_lm: Dspy,
        plan: SearchPlan,
        curated: Sequence[str],
        observer: SearchObserver,
        race: Race,
    ) -> None:
        """Prepare a search.

        Args:
            metric: DSPy metric, bounded 0..1; a bool when it gets a trace.
            task_lm: Judges.
            prompt_lm: Writes instructions.
            plan: Numbers.
            curated: Instructions that compete or stand in.
            observer: Hears of everything.
            race: Scores candidates on the validation examples that `search` gets.
        """
        super().__init__(
            metric=metric,
            task_model=task_lm,
            prompt_model=prompt_lm,
            auto=None,
            num_candidates=plan.num_candidates,
            max_bootstrapped_demos=plan.max_bootstrapped_demos,
            max_labeled_demos=plan.max_labeled_demos,
            num_threads=plan.num_threads,
            max_errors=_NEVER,
            # compile() takes `seed or self.seed`: given here alone, 0 stays 0.
            seed=plan.seed,
        )
        self._plan = plan
        self._curated = tuple(curated)
        self._observer = observer
        self._race = race

    def search(
        self, module: Dspy, *, train: list[Dspy], validation: list[Dspy]
    ) -> None:
        """Run the search; all results go to the observer.

        Args:
            module: The version to start from; its demonstrations are one of the candidate sets.
            train: dspy examples for demonstrations.
            validation: dspy examples to score on.
        """
        self.compile(
            module,
            trainset=train,
            valset=validation,
            num_trials=self._plan.num_trials,
            minibatch=self._plan.minibatch_size is not None,
            minibatch_size=self._plan.minibatch_size or len(validation),
            minibatch_full_eval_steps=MINIBATCH_FULL_STEPS,
            program_aware_proposer=False,
        )

    # --- Demonstrations -------------------------------------------------------------------------

    def _bootstrap_fewshot_examples(
        self,
        program: Dspy,
        trainset: list[Dspy],
        seed: int,
        teacher: Dspy,
        **options: Dspy,
    ) -> dict[int, list[list[Dspy]]]:
        self._observer.phase(Phase.BOOTSTRAPPING)
        kept = [e for e in trainset if _chars(e) <= self._plan.max_demo_chars // _SHARE]
        if len(kept) < len(trainset):
            self._observer.warning(
                f"{len(trainset) - len(kept)} of {len(trainset)} training examples are too long "
                "to be demonstrations"
            )
        if self._plan.max_labeled_demos == 0 and self._plan.max_bootstrapped_demos == 0:
            sets: list[list[Dspy]] = [[]]
        elif not kept:
            sets = [[]]
        elif self._plan.max_bootstrapped_demos == 0:
            # The original draws a number of bootstrapped demonstrations from 1 to 0 and fails.
            sets = self._labeled_sets(kept, count=options["num_fewshot_candidates"])
        else:
            found = super()._bootstrap_fewshot_examples(
                program, kept, seed, teacher, **options
            )
            sets = (found or {0: [[]]})[0]
        current = list(program.predictors()[0].demos)
        bounded = [_bounded(s, limit=self._plan.max_demo_chars) for s in sets]
        if current:
            bounded.append(current)
        return {0: _distinct(bounded)}

    def _labeled_sets(self, examples: list[Dspy], *, count: int) -> list[list[Dspy]]:
        size = min(self._plan.max_labeled_demos, len(examples))
        rng = random.Random(self._plan.seed)  # noqa: S311 - reproducible, not secret
        return [[], *(rng.sample(examples, size) for _ in range(count - 1))]

    # --- Instructions ---------------------------------------------------------------------------

    def _propose_instructions(
        self,
        program: Dspy,
        trainset: list[Dspy],
        demo_candidates: dict[int, list[list[Dspy]]],
        *_: Dspy,
        num_instruct_candidates: int,
        **__: Dspy,
    ) -> dict[int, list[str]]:
        self._observer.phase(Phase.PROPOSING)
        current = program.predictors()[0].signature.instructions
        proposed: list[str] = []
        if self._plan.instruction_source is InstructionSource.PROPOSER:
            proposed = self._ask_proposer(
                program, trainset, demo_candidates, count=num_instruct_candidates - 1
            )
        selected = select_instructions(
            current,
            proposed=proposed,
            curated=self._curated,
            count=num_instruct_candidates,
        )
        for proposal in selected:
            self._observer.proposed(proposal)
        self._observer.phase(Phase.SEARCHING)
        return {0: [p.instructions for p in selected if p.index >= 0]}

    def _ask_proposer(
        self,
        program: Dspy,
        trainset: list[Dspy],
        demo_candidates: dict[int, list[list[Dspy]]],
        *,
        count: int,
    ) -> list[str]:
        """Return what the proposer writes, one by one: a failed one costs only itself."""
        tags = prompt_tags(program.predictors()[0].signature.input_fields)
        proposer = GroundedProposer(
            program=program,
            trainset=[_viewed(e, tags=tags) for e in trainset[:_PROPOSER_EXAMPLES]],
            prompt_model=self.prompt_model,
            view_data_batch_size=_PROPOSER_BATCH,
            program_aware=False,
            use_dataset_summary=True,
            use_task_demos=True,
            use_tip=True,
            set_tip_randomly=True,
            use_instruct_history=False,
            set_history_randomly=False,
            rng=self.rng,
            init_temperature=self.init_temperature,
        )
        if not proposer.use_dataset_summary:
            self._observer.warning(
                "the prompt model could not summarise the examples; "
                "it writes instructions without a summary"
            )
        else:
            # A model wrote it from the examples, so it may quote what they hold.
            proposer.data_summary = neutralize(proposer.data_summary, tags=tags)
        demos = {0: [[_viewed(d, tags=tags) for d in s] for s in demo_candidates[0]]}
        found = []
        failures = 0
        for index in range(count):
            tip = TIPS[self.rng.choice(list(TIPS))]
            proposer.use_tip = bool(tip)
            try:
                found.append(
                    proposer.propose_instruction_for_predictor(
                        program=program,
                        predictor=program.predictors()[0],
                        pred_i=0,
                        demo_candidates=demos,
                        demo_set_i=index % len(demos[0]),
                        trial_logs={},
                        tip=tip,
                    )
                )
            except Exception:  # noqa: BLE001 - a proposal that cannot be read is one fewer, nothing worse
                failures += 1
        if failures:
            self._observer.warning(
                f"{failures} of {count} proposals of the prompt model could not be read; "
                "curated instructions take their places"
            )
        return found

    # --- Trials ---------------------------------------------------------------------------------

    def _optimize_prompt_parameters(self, *args: Dspy) -> Dspy:
        """Search with the race as evaluator, instead of the one that the original has made."""
        program, instructions, demos, _, *rest = args
        return super()._optimize_prompt_parameters(
            program, instructions, demos, self._race, *rest
        )

    def _log_normal_eval(
        self,
        score: float,
        best_score: float,
        chosen_params: Dspy,
        score_data: Dspy,
        trial: Dspy,
        *rest: Dspy,
    ) -> None:
        """Report a trial on all examples; instead of the original, which only logs and keeps copies."""
        self._report(trial.params, rest[5])
        if self._observer.should_stop():
            trial.study.stop()

    def _log_minibatch_eval(  # noqa: PLR0917 - the original's signature
        self,
        score: float,
        best_score: float,
        batch_size: int,
        chosen_params: Dspy,
        score_data: Dspy,
        trial: Dspy,
        *rest: Dspy,
    ) -> None:
        """Report a trial on a minibatch; instead of the original, as above."""
        self._report(trial.params, rest[3])
        if self._observer.should_stop():
            trial.study.stop()

    def _perform_full_evaluation(self, *args: Dspy, **options: Dspy) -> Dspy:
        """Report the full evaluation that follows some minibatches."""
        done, study = args[3], args[11]
        before = set(done)
        try:
            result = super()._perform_full_evaluation(*args, **options)
        except ValueError:
            # Every combination seen so far is fully scored already: nothing to do.
            return args[9], args[10], args[7]
        for key in set(done) - before:
            self._report(study.trials[-1].params, done[key]["program"])
        return result

    def _report(self, params: dict[str, int], module: Dspy) -> None:
        outcome = self._race.outcome(module)
        self._observer.trial(
            SearchTrial(
                score=outcome.score,
                example_count=outcome.example_count,
                full=outcome.full,
                instruction_index=params["0_predictor_instruction"],
                demo_set_index=params.get("0_predictor_demos", 0),
                module=module,
                stopped_early=outcome.stopped_early,
            )
        )


_SHARE = 3
"""No single demonstration may take more than this part of the room for all."""


def _chars(example: Dspy) -> int:
    return sum(len(str(value)) for value in example.toDict().values())


def _bounded(demos: Sequence[Dspy], *, limit: int) -> list[Dspy]:
    """Return the first demonstrations that fit, at least in part shorter than the limit together."""
    kept: list[Dspy] = []
    used = 0
    for demo in demos:
        used += _chars(demo)
        if used > limit:
            break
        kept.append(demo)
    return kept


def _distinct(sets: list[list[Dspy]]) -> list[list[Dspy]]:
    """Drop sets that hold the same in the same order; the first one stays first."""
    seen: set[str] = set()
    kept = []
    for demos in sets:
        key = repr([sorted(d.toDict().items(), key=str) for d in demos])
        if key not in seen:
            seen.add(key)
            kept.append(demos)
    return kept


def _viewed(example: Dspy, *, tags: frozenset[str]) -> Dspy:
    """Return what the proposer sees of an example or a demonstration."""
    copy = dspy.Example(**{k: shown(v, tags=tags) for k, v in example.toDict().items()})
    inputs = getattr(example, "_input_keys", None)
    return copy.with_inputs(*inputs) if inputs else copy
