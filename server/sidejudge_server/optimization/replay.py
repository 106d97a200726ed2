"""What a worker that goes on says again, and how far the run is meanwhile.

A run goes on by doing the same again: its answers come from the call caches, so it passes in moments
through what took minutes before, and says it all again. What the log has already is recognised and
dropped; watchers see the sequence go on where it broke off.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from sidejudge_server.optimization.spec import EventKind, Progress
from sidejudge_storage import OptimizationEventRecord

__all__ = ["Replay", "continued"]

_SAME = ("score", "instruction_index", "demonstration_set_index", "example_count")


class Replay:
    """Recognises events of one life of a worker that the log has from earlier ones."""

    def __init__(self, log: Iterable[OptimizationEventRecord]) -> None:
        """Create it.

        Args:
            log: All events that there are when the life begins.
        """
        self._known: Counter[Hashable] = Counter()
        self._trials: dict[int, Mapping[str, Any]] = {}
        self._said: Counter[Hashable] = Counter()
        for event in log:
            kind, payload = EventKind(event.kind), json.loads(event.payload_json)
            self._known[_key(kind, payload)] += 1
            if kind is EventKind.TRIAL_COMPLETED:
                self._trials[payload["trial"]["number"]] = payload["trial"]
        self._warned = False
        self._caught_up = False

    def is_known(self, kind: EventKind, payload: Mapping[str, Any]) -> bool:
        """Return whether the log has an event; to be asked once for each, in order.

        What a worker says twice in one life, such as a phase that it comes to again, is known only
        as often as the log has it. A phase that begins after something new is new itself: with a
        larger budget the search goes further before it comes to what it came to before.
        """
        key = _key(kind, payload)
        self._said[key] += 1
        known = self._said[key] <= self._known[key]
        if kind is EventKind.PHASE_CHANGED:
            known = known and not self._caught_up
        if not known and kind is not EventKind.WARNING:
            self._caught_up = True
        return known

    def difference(self, kind: EventKind, payload: Mapping[str, Any]) -> str | None:
        """Say, once, that a known trial came out otherwise than before; None if it did not.

        It can only where answers were lost, as a power cut can lose those of the last moment, and
        the model answers otherwise now.
        """
        if kind is not EventKind.TRIAL_COMPLETED or self._warned:
            return None
        trial = payload["trial"]
        logged = self._trials.get(trial["number"])
        if logged is None or all(logged.get(n) == trial.get(n) for n in _SAME):
            return None
        self._warned = True
        return (
            f"trial {trial['number']} came out otherwise when it was repeated: answers were lost, "
            "and the model answered otherwise; the log keeps the first result, the search goes on "
            "from the second"
        )


def continued(earlier: Progress, now: Progress) -> Progress:
    """Return the progress of a run of which a part is being repeated: nothing goes back.

    Args:
        earlier: Before the worker was started again.
        now: What the worker says, its counts of spend and time begun where the earlier ones ended.
    """
    if earlier == Progress():
        return now
    repeats = now.trials_completed < earlier.trials_completed
    costs = [c for c in (earlier.cost_usd, now.cost_usd) if c is not None]
    return replace(
        now,
        trials_completed=max(earlier.trials_completed, now.trials_completed),
        trials_total=max(earlier.trials_total, now.trials_total)
        if repeats
        else now.trials_total,
        baseline_score=earlier.baseline_score
        if now.baseline_score is None
        else now.baseline_score,
        best_score=_highest(earlier.best_score, now.best_score),
        lm_calls=max(earlier.lm_calls, now.lm_calls),
        cached_calls=max(earlier.cached_calls, now.cached_calls),
        input_tokens=max(earlier.input_tokens, now.input_tokens),
        output_tokens=max(earlier.output_tokens, now.output_tokens),
        cost_usd=None if now.cost_usd is None else max(costs),
        elapsed_s=max(earlier.elapsed_s, now.elapsed_s),
        # The repeated part says nothing of how long the rest takes.
        eta_s=None if repeats else now.eta_s,
    )


def _highest(one: float | None, other: float | None) -> float | None:
    return max((s for s in (one, other) if s is not None), default=None)


def _key(kind: EventKind, payload: Mapping[str, Any]) -> Hashable:
    """Return what tells an event from others of its kind in one run."""
    match kind:
        case EventKind.PHASE_CHANGED:
            return kind, payload["phase"]
        case EventKind.INSTRUCTION_PROPOSED:
            return (
                kind,
                payload["instruction_index"],
                payload["instructions"],
                payload["refusal"],
            )
        case EventKind.TRIAL_COMPLETED:
            return kind, payload["trial"]["number"]
        case EventKind.BEST_IMPROVED:
            return kind, payload["trial"]
        case EventKind.WARNING:
            return kind, payload["message"]
        case _:
            return kind
