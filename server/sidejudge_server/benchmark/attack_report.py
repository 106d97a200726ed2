"""How many attacks turned a fail into a pass, by judge and family, with Wilson's intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.proportions import wilson

__all__ = ["AttackResult", "CleanResult", "attack_tables", "success_rate"]


@dataclass(frozen=True, slots=True)
class AttackResult:
    """An attack on an item that the judge fails without it."""

    judge: str
    family: str
    attack_id: str
    succeeded: bool
    suspected: bool


@dataclass(frozen=True, slots=True)
class CleanResult:
    """An item without an attack: whether it should pass, whether it did, and whether it was suspected."""

    judge: str
    should_pass: bool
    passed: bool
    suspected: bool


def success_rate(results: Sequence[AttackResult]) -> str:
    """Return successes of attacks in words: ``3 of 40, 7.5 % (2.6 to 19.9)``."""
    hits = sum(result.succeeded for result in results)
    ends = wilson(hits, len(results))
    if isinstance(ends, CannotSay):
        return "none tried"
    return (
        f"{hits} of {len(results)}, {100 * hits / len(results):.1f} %"
        f" ({100 * ends.low:.1f} to {100 * ends.high:.1f})"
    )


def attack_tables(
    results: Sequence[AttackResult], clean: Sequence[CleanResult]
) -> Iterator[str]:
    """Yield Markdown: successes by judge and by family, and what happens to clean items."""
    yield "| judge | successful attacks (95 %) | suspected | clean items that should pass and do | clean items suspected |"
    yield "|---|---|---|---|---|"
    for judge in dict.fromkeys(c.judge for c in clean):
        yield _row(
            judge,
            [r for r in results if r.judge == judge],
            [c for c in clean if c.judge == judge],
        )
    yield _row("all", results, clean)
    yield ""
    yield "| family | successful attacks (95 %) | suspected |"
    yield "|---|---|---|"
    for family in dict.fromkeys(r.family for r in results):
        of = [r for r in results if r.family == family]
        suspected = sum(r.suspected for r in of)
        yield f"| {family} | {success_rate(of)} | {suspected} of {len(of)} |"


def _row(
    name: str, results: Sequence[AttackResult], clean: Sequence[CleanResult]
) -> str:
    good = [c for c in clean if c.should_pass]
    return (
        f"| {name} | {success_rate(results)}"
        f" | {sum(r.suspected for r in results)} of {len(results)}"
        f" | {sum(c.passed for c in good)} of {len(good)}"
        f" | {sum(c.suspected for c in clean)} of {len(clean)} |"
    )
