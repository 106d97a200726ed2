"""When a judge is optimized by itself. Pure: a policy and a situation give a ruling.

A run is due when enough has been learnt since the last one: so many accepted examples, of which so
many show the judge wrong. The cool-down and the daily budget hold it back. What is learnt counts
from the last run that took the data in; a failed one did not, and is tried again after the
cool-down, or after a wait that doubles with each failure in a row if that is longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sidejudge_server.errors import FieldViolation
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.plan import OptimizationConfig

__all__ = ["DAY", "Policy", "Ruling", "Situation", "Spent", "rule"]

DAY = timedelta(hours=24)
DEFAULT_MIN_NEW_EXAMPLES = 50
DEFAULT_MIN_DISAGREEMENTS = 5
DEFAULT_COOL_DOWN = timedelta(hours=6)

_WAIT_AFTER_FAILURE = timedelta(minutes=10)
_MOST_EXAMPLES = 100_000
_LONGEST_COOL_DOWN = timedelta(days=365)
_CONFIG_PREFIX = "optimization.config."


@dataclass(frozen=True, slots=True)
class Policy:
    """When to start a run and which.

    Attributes:
        enabled: True to start runs.
        min_new_examples: Accepted examples since the last run, 1 to 100,000.
        min_disagreements: Of these, how many the judge had got wrong, 0 to 100,000.
        cool_down: Least time between the end of a run of the judge and the next start, 0 to a year.
        daily_budget: What all runs of the policy within 24 hours may spend together;
            ``max_duration_s`` and ``max_trials`` bound each run.
        config: How to search.
        deploy_if_better: True to deploy a candidate that the gate says is better.
        paused: Starts nothing until it is resumed.
        pause_reason: Who paused it and why.
    """

    enabled: bool = False
    min_new_examples: int = DEFAULT_MIN_NEW_EXAMPLES
    min_disagreements: int = DEFAULT_MIN_DISAGREEMENTS
    cool_down: timedelta = DEFAULT_COOL_DOWN
    daily_budget: OptimizationBudget = field(default_factory=OptimizationBudget)
    config: OptimizationConfig = field(default_factory=OptimizationConfig)
    deploy_if_better: bool = False
    paused: bool = False
    pause_reason: str = ""

    def violations(
        self, *, unpriced: Iterable[str] = (), prefix: str = "optimization_policy."
    ) -> list[FieldViolation]:
        """Return all that is out of range; empty when all is well.

        Args:
            unpriced: Models whose price is not known.
            prefix: Path of the policy in the request.
        """
        found = []
        if not 1 <= self.min_new_examples <= _MOST_EXAMPLES:
            found.append(
                FieldViolation(
                    f"{prefix}min_new_examples", f"must be 1 to {_MOST_EXAMPLES}"
                )
            )
        if not 0 <= self.min_disagreements <= _MOST_EXAMPLES:
            found.append(
                FieldViolation(
                    f"{prefix}min_disagreements", f"must be 0 to {_MOST_EXAMPLES}"
                )
            )
        if not timedelta() <= self.cool_down <= _LONGEST_COOL_DOWN:
            found.append(
                FieldViolation(f"{prefix}cool_down", "must be 0 s to 365 days")
            )
        found += self.daily_budget.violations(
            unpriced=tuple(unpriced), prefix=f"{prefix}daily_budget."
        )
        found += [
            FieldViolation(
                f"{prefix}config.{v.field.removeprefix(_CONFIG_PREFIX)}", v.description
            )
            for v in self.config.violations()
        ]
        return found


@dataclass(frozen=True, slots=True)
class Spent:
    """What runs have spent; ``cost_usd`` None when a price is not known."""

    lm_calls: int = 0
    tokens: int = 0
    cost_usd: float | None = 0.0

    @classmethod
    def of(cls, progresses: Iterable[Mapping[str, Any]]) -> Spent:
        """Add up the progress of runs, as `spec.Progress` describes it."""
        calls = tokens = 0
        cost: float | None = 0.0
        for progress in progresses:
            calls += progress.get("lm_calls", 0)
            tokens += progress.get("input_tokens", 0) + progress.get("output_tokens", 0)
            paid = progress.get("cost_usd", 0.0)
            cost = None if cost is None or paid is None else cost + paid
        return cls(calls, tokens, cost)


@dataclass(frozen=True, slots=True)
class Situation:
    """What a policy looks at.

    Attributes:
        now: The time.
        new_examples: Accepted examples since the last run that took the data in.
        new_disagreements: Of these, how many the judge had got wrong.
        last_run: That run, `optimizations/{optimization}`; "" if there was none.
        last_run_at: When it was created.
        last_end: When the last run of the judge, whatever came of it, ended.
        active: A run of the judge that has not ended, `optimizations/{optimization}`, or "".
        failures: Runs of the judge that failed since the last one that did not.
        spent: By the policy's runs of the last 24 hours.
        oldest_spend_at: When the first of these was created.
    """

    now: datetime
    new_examples: int
    new_disagreements: int
    last_run: str = ""
    last_run_at: datetime | None = None
    last_end: datetime | None = None
    active: str = ""
    failures: int = 0
    spent: Spent = Spent()
    oldest_spend_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Ruling:
    """What follows.

    Attributes:
        waiting_for: Why no run starts now; empty if one is due.
        reason: Why one starts, with figures; empty if none does.
        budget: What it may spend.
        look_again_at: When time alone may change the ruling; None if it cannot.
    """

    waiting_for: str
    reason: str
    budget: OptimizationBudget
    look_again_at: datetime | None = None


def rule(policy: Policy, situation: Situation) -> Ruling:
    """Say whether a run is due, with the reason, or all that it waits for."""
    waits: list[str] = []
    again: list[datetime] = []
    if not policy.enabled:
        waits.append("the policy to be enabled")
    if policy.paused:
        why = f" ({policy.pause_reason})" if policy.pause_reason else ""
        waits.append(f"the policy to be resumed; it is paused{why}")
    if situation.new_examples < policy.min_new_examples:
        waits.append(
            f"{policy.min_new_examples - situation.new_examples} more examples: "
            f"{situation.new_examples} of {policy.min_new_examples} are new"
        )
    if situation.new_disagreements < policy.min_disagreements:
        waits.append(
            f"{policy.min_disagreements - situation.new_disagreements} more disagreements: the "
            f"judge was wrong on {situation.new_disagreements} of the new examples, "
            f"{policy.min_disagreements} are needed"
        )
    if situation.active:
        waits.append(f"{situation.active} to end")
    elif situation.last_end is not None:
        pause = _wait_after(situation.failures)
        cause = f"a pause after {situation.failures} failed runs in a row"
        if situation.failures == 1:
            cause = "a pause after a failed run"
        if policy.cool_down >= pause:
            pause, cause = policy.cool_down, "the cool-down"
        over = situation.last_end + pause
        if over > situation.now:
            waits.append(f"{cause}, until {_moment(over)}")
            again.append(over)
    budget, used_up = _left(policy.daily_budget, situation.spent)
    if used_up and situation.oldest_spend_at is not None:
        opens = situation.oldest_spend_at + DAY
        waits.append(f"the daily budget: {used_up}; more from {_moment(opens)} on")
        again.append(opens)
    if waits:
        return Ruling("; ".join(waits), "", budget, max(again, default=None))
    return Ruling("", _reason(situation), budget)


def _wait_after(failures: int) -> timedelta:
    """Return the least time to the next start: a cause that stays must not be paid for all day."""
    if not failures:
        return timedelta()
    doublings = min(failures - 1, 8)  # beyond a day, and no overflow
    return min(DAY, _WAIT_AFTER_FAILURE * (1 << doublings))


def _left(budget: OptimizationBudget, spent: Spent) -> tuple[OptimizationBudget, str]:
    """Return what is left of a daily budget, and what of it is used up, if anything is."""
    calls, tokens, cost = budget.max_lm_calls, budget.max_tokens, budget.max_cost_usd
    if calls is not None:
        calls -= spent.lm_calls
        if calls < 1:
            return budget, f"{spent.lm_calls} of {budget.max_lm_calls} calls are made"
    if tokens is not None:
        tokens -= spent.tokens
        if tokens < 1:
            return budget, f"{spent.tokens} of {budget.max_tokens} tokens are used"
    if cost is not None:
        if spent.cost_usd is None:
            return budget, "what the runs of the last 24 hours have cost is not known"
        cost -= spent.cost_usd
        if cost <= 0:
            return budget, (
                f"${spent.cost_usd:.4f} of ${budget.max_cost_usd:.4f} are spent"
            )
    return (
        replace(budget, max_lm_calls=calls, max_tokens=tokens, max_cost_usd=cost),
        "",
    )


def _reason(situation: Situation) -> str:
    since = "since the judge exists"
    if situation.last_run and situation.last_run_at is not None:
        since = f"since {situation.last_run} of {_moment(situation.last_run_at)}"
    return (
        f"{situation.new_examples} new examples, {situation.new_disagreements} of them "
        f"disagreements, {since}"
    )


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
