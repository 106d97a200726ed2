"""What a run is expected to take, computed before it starts. Pure arithmetic.

Calls come from `workload`. Tokens follow from the length of real requests, time from the seconds of recent calls. None of it is
exact: on small grids the sampler returns to what did well, and a provider's own prompt cache makes
prompt tokens cheaper than counted here. The estimate errs on the long side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from sidejudge_server.lm.pricing import Price
from sidejudge_server.lm.wires import TokenCounts
from sidejudge_server.optimization.plan import AlgorithmName, SearchPlan
from sidejudge_server.optimization.workload import SUMMARY_BATCH, Workload

__all__ = [
    "NO_BOUNDS",
    "Bounds",
    "Expectation",
    "Lengths",
    "Rates",
    "RunEstimate",
    "estimate_run",
]

START_S = 1.0
"""A worker process with the optimizer loaded."""
OVERHEAD_S = 0.005
"""What the optimizer itself needs beside every call."""

RACED_SHARE = 0.85
"""Calls of a search that drops candidates early: 0.63 to 0.80 with nearly equal candidates or better
in simulations (ADR 15), 1 where no candidate is behind."""

_RACING = frozenset({AlgorithmName.MIPROV2, AlgorithmName.AUTO})
_FEWEST_TO_RACE = 20
"""Validation examples below which there is little to save."""
_PROPOSAL_OUTPUT_TOKENS = 200


class Bounds(Protocol):
    """What a run may spend; None is no bound."""

    @property
    def max_lm_calls(self) -> int | None:
        """LM calls."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """Prompt and generated tokens together."""
        ...

    @property
    def max_cost_usd(self) -> float | None:
        """US dollars."""
        ...

    @property
    def max_duration_s(self) -> float | None:
        """Seconds at work."""
        ...

    @property
    def max_trials(self) -> int | None:
        """Trials."""
        ...


@dataclass(frozen=True, slots=True)
class _NoBounds:
    max_lm_calls: int | None = None
    max_tokens: int | None = None
    max_cost_usd: float | None = None
    max_duration_s: float | None = None
    max_trials: int | None = None


NO_BOUNDS: Bounds = _NoBounds()


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean lengths of what is sent, in characters.

    Attributes:
        serving: A request of the version that serves, its demonstrations included.
        bare: The same without demonstrations.
        demonstration: What one demonstration adds.
        example: One example as the proposer sees it.
    """

    serving: float
    bare: float
    demonstration: float
    example: float


@dataclass(frozen=True, slots=True)
class Rates:
    """What calls cost.

    Attributes:
        tokens_per_char: Prompt tokens per character of a request.
        output_tokens: Generated tokens of one judge call.
        task_call_s: Seconds of one judge call.
        prompt_call_s: Seconds of one call of the prompt model.
        task_price: None if it is not known.
        prompt_price: None if it is not known.
        basis: What these numbers rest on, for people.
    """

    tokens_per_char: float
    output_tokens: float
    task_call_s: float
    prompt_call_s: float
    task_price: Price | None
    prompt_price: Price | None
    basis: str


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """What a run is expected to take; ``cost_usd`` None when a price is not known."""

    lm_calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    duration_s: float
    trials: int
    basis: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Expectation:
    """An estimate with what a budget means for it.

    Attributes:
        estimate: What the run takes.
        warnings: Where the budget cuts it short.
        reaches_gate: False if the budget ends the run before the gate can speak.
    """

    estimate: RunEstimate
    warnings: tuple[str, ...]
    reaches_gate: bool


def estimate_run(
    work: Workload,
    plan: SearchPlan,
    *,
    lengths: Lengths,
    rates: Rates,
    bounds: Bounds,
) -> Expectation:
    """Turn calls into tokens, money and time, and cut them down to a budget.

    The search ends where the budget leaves what the gate needs, so a bound shortens the search
    alone; one that is below baseline and gate together ends the run before the gate can speak,
    which is worth a warning.
    """
    work = _raced(work, plan)
    demos = _demonstration_chars(plan, lengths)
    with_demos = lengths.bare + demos
    fixed = _sum(
        [
            _judging(
                work.baseline + work.gate_serving,
                lengths.serving,
                plan=plan,
                rates=rates,
            ),
            _judging(work.gate_candidate, with_demos, plan=plan, rates=rates),
            replace(_NOTHING, seconds=START_S),
        ]
    )
    search = _sum(
        [
            _judging(work.bootstrapping, with_demos, plan=None, rates=rates),
            _proposals(work.proposing, lengths, rates=rates),
            _judging(work.searching, with_demos, plan=plan, rates=rates),
        ]
    )
    share, warnings = _affordable(fixed, search, work=work, bounds=bounds)
    room = _room(fixed, bounds)
    spent = _sum([fixed, search.times(share)])
    spent = spent.times(min(1.0, _room(spent, bounds)))
    trials = round(work.trials * share)
    if work.trials and bounds.max_trials is not None:
        trials = min(trials, bounds.max_trials)
    return Expectation(
        RunEstimate(
            lm_calls=round(spent.calls),
            input_tokens=round(spent.input_tokens),
            output_tokens=round(spent.output_tokens),
            cost_usd=None if spent.cost_usd is None else round(spent.cost_usd, 6),
            duration_s=round(spent.seconds, 1),
            trials=trials,
            basis=rates.basis,
        ),
        warnings,
        reaches_gate=room >= 1,
    )


@dataclass(frozen=True, slots=True)
class _Spend:
    """An amount of everything that a budget can bound."""

    calls: float
    input_tokens: float
    output_tokens: float
    cost_usd: float | None
    seconds: float

    def times(self, factor: float) -> _Spend:
        return _Spend(
            self.calls * factor,
            self.input_tokens * factor,
            self.output_tokens * factor,
            None if self.cost_usd is None else self.cost_usd * factor,
            self.seconds * factor,
        )


_NOTHING = _Spend(0, 0, 0, 0.0, 0)


def _sum(parts: Sequence[_Spend]) -> _Spend:
    costs = [part.cost_usd for part in parts]
    known = [cost for cost in costs if cost is not None]
    return _Spend(
        sum(part.calls for part in parts),
        sum(part.input_tokens for part in parts),
        sum(part.output_tokens for part in parts),
        sum(known) if len(known) == len(costs) else None,
        sum(part.seconds for part in parts),
    )


def _raced(work: Workload, plan: SearchPlan) -> Workload:
    """Return a workload without the calls that dropping candidates early is sure to save."""
    races = plan.early_stopping and plan.algorithm in _RACING
    if not races or work.baseline < _FEWEST_TO_RACE:
        return work
    return replace(work, searching=work.searching * RACED_SHARE)


def _judging(
    calls: float, chars: float, *, plan: SearchPlan | None, rates: Rates
) -> _Spend:
    """Return what judge calls cost; without a plan they come one after the other."""
    tokens = chars * rates.tokens_per_char
    at_once = plan.num_threads if plan else 1
    return _Spend(
        calls,
        calls * tokens,
        calls * rates.output_tokens,
        _cost(rates.task_price, calls, tokens, rates.output_tokens),
        calls * (rates.task_call_s / at_once + OVERHEAD_S),
    )


def _proposals(calls: float, lengths: Lengths, *, rates: Rates) -> _Spend:
    """Return what the proposer costs: half its calls read a batch of examples."""
    tokens = (
        lengths.bare + SUMMARY_BATCH * lengths.example
    ) * rates.tokens_per_char + _PROPOSAL_OUTPUT_TOKENS
    return _Spend(
        calls,
        calls * tokens,
        calls * _PROPOSAL_OUTPUT_TOKENS,
        _cost(rates.prompt_price, calls, tokens, _PROPOSAL_OUTPUT_TOKENS),
        calls * rates.prompt_call_s,
    )


def _cost(
    price: Price | None, calls: float, tokens: float, output_tokens: float
) -> float | None:
    if price is None:
        return None if calls else 0.0
    counts = TokenCounts(
        prompt=round(calls * tokens), generated=round(calls * output_tokens)
    )
    return price.cost_usd(counts)


def _affordable(
    fixed: _Spend, search: _Spend, *, work: Workload, bounds: Bounds
) -> tuple[float, tuple[str, ...]]:
    """Return the share of the search that fits beside baseline and gate, with warnings."""
    share = 1.0
    warnings = []
    for name, bound, needed, more in _bounded(fixed, search, bounds):
        if needed > bound:
            warnings.append(
                f"{name} of {_figure(bound)} does not reach the gate: the baseline and the gate "
                f"alone take about {_figure(needed)}; raise it or use fewer examples"
            )
            share = 0.0
        elif needed + more > bound:
            left = (bound - needed) / more
            share = min(share, left)
            warnings.append(
                f"{name} of {_figure(bound)} leaves room for about "
                f"{round(work.trials * left)} of {work.trials} trials"
            )
    if bounds.max_trials is not None and work.trials > bounds.max_trials:
        share = min(share, bounds.max_trials / work.trials)
    return share, tuple(warnings)


def _bounded(
    fixed: _Spend, search: _Spend, bounds: Bounds
) -> list[tuple[str, float, float, float]]:
    """Return name, bound, what is always needed and what the search adds, of each bound set."""
    rows = [
        ("max_lm_calls", bounds.max_lm_calls, fixed.calls, search.calls),
        (
            "max_tokens",
            bounds.max_tokens,
            fixed.input_tokens + fixed.output_tokens,
            search.input_tokens + search.output_tokens,
        ),
        ("max_cost_usd", bounds.max_cost_usd, fixed.cost_usd, search.cost_usd),
        ("max_duration in s", bounds.max_duration_s, fixed.seconds, search.seconds),
    ]
    return [
        (name, bound, needed, more)
        for name, bound, needed, more in rows
        if bound is not None and needed is not None and more is not None
    ]


def _room(spent: _Spend, bounds: Bounds) -> float:
    """Return the part of a spend that the tightest bound allows."""
    return min(
        (
            bound / needed
            for _, bound, needed, _ in _bounded(spent, _NOTHING, bounds)
            if needed
        ),
        default=1.0,
    )


def _figure(value: float) -> str:
    return f"{value:,.2f}" if value < 10 else f"{value:,.0f}"  # noqa: PLR2004 - two digits are enough from there


def _demonstration_chars(plan: SearchPlan, lengths: Lengths) -> float:
    """Return what demonstrations add to a request of the search, on average over the sets."""
    count = max(plan.max_labeled_demos, plan.max_bootstrapped_demos)
    longest = min(count * lengths.demonstration, float(plan.max_demo_chars))
    return longest * (1 - 1 / max(2, plan.num_candidates))
