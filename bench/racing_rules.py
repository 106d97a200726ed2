"""How often rules for dropping candidates early drop one that is better, and what they save.

Simulated soft metrics of an incumbent and a challenger on the same examples, in random order, looked
at in blocks; no language model. ``python -m bench.racing_rules`` prints the tables of ADR 15.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sidejudge_server.optimization.racing import ALPHA, BLOCK, CLIP
from sidejudge_server.stats.evidence import sign_log_e_new_better
from sidejudge_server.stats.finite_betting import finite_mean_below_log_e

Floats = NDArray[np.float64]
Rule = Callable[[Floats, int], bool]
"""Takes the differences seen, challenger minus incumbent, and how many there are in all."""

_CLEAR = 0.02
_WORSE = -0.03


def betting(alpha: float, clip: float) -> Rule:
    """Bets without replacement on differences cut at +-clip, at level alpha."""

    def drops(seen: Floats, population: int) -> bool:
        cut = (seen / clip).clip(-1, 1)
        log_e = finite_mean_below_log_e(cut.tolist(), population=population)
        return log_e >= math.log(1 / alpha)

    return drops


def sign(alpha: float) -> Rule:
    """Sign e-value: the incumbent wins more than half of the examples."""

    def drops(seen: Floats, population: int) -> bool:
        del population
        wins, losses = int((seen < 0).sum()), int((seen > 0).sum())
        return sign_log_e_new_better(wins, losses) >= math.log(1 / alpha)

    return drops


def predictive(z: float) -> Rule:
    """Normal prediction of the full mean: no guarantee, the usual rule of thumb."""

    def drops(seen: Floats, population: int) -> bool:
        count = len(seen)
        # Four pseudo-observations with a spread of 0.2, so that a lucky first block is not sure.
        squares = 4 * 0.2**2 + float(((seen - seen.mean()) ** 2).sum())
        error = math.sqrt(squares / (count + 3) * (1 / count - 1 / population))
        return float(seen.mean()) + z * error < 0

    return drops


RULES: Mapping[str, Rule] = {
    f"betting, {ALPHA:.0%}, cut at {CLIP} (chosen)": betting(ALPHA, CLIP),
    "betting, 10 %, cut at 0.3": betting(0.1, 0.3),
    "betting, 20 %, not cut": betting(0.2, 1.0),
    "betting, 5 %, not cut": betting(0.05, 1.0),
    "sign e-value, 20 %": sign(0.2),
    "normal prediction, z = 1.64": predictive(1.645),
    "normal prediction, z = 2": predictive(2.0),
}


def _logistic(logits: Floats) -> Floats:
    values: Floats = 1 / (1 + np.exp(-logits))
    return values


def soft(rng: np.random.Generator, count: int, *, spread: float = 0.35) -> Floats:
    """P(right label) of 64 candidates: 8 instructions with 8 demonstration sets, in logits."""
    instructions = rng.normal(0, 0.7 * spread, 8)[:, None, None]
    demonstrations = rng.normal(0, 0.7 * spread, 8)[None, :, None]
    difficulty = rng.normal(1.0, 1.6, count)
    noise = (
        rng.normal(0, 0.4, (8, 1, count))
        + rng.normal(0, 0.4, (1, 8, count))
        + rng.normal(0, 0.25, (8, 8, count))
    )
    return _logistic(instructions + demonstrations + difficulty + noise).reshape(
        -1, count
    )


def close(rng: np.random.Generator, count: int) -> Floats:
    """Nearly equal candidates."""
    return soft(rng, count, spread=0.07)


def few_large_wins(rng: np.random.Generator, count: int) -> Floats:
    """Instructions that fix some hard examples at a small price on all others."""
    difficulty = rng.normal(1.0, 1.6, count)
    fixed = rng.random((64, count)) < rng.uniform(0, 0.4, (64, 1))
    price = rng.uniform(0, 0.25, (64, 1)) + rng.normal(0, 0.3, (64, 1))
    noise = rng.normal(0, 0.3, (64, count))
    return _logistic(difficulty - price + 3.5 * (fixed & (difficulty < 0.7)) + noise)


def right_or_wrong(rng: np.random.Generator, count: int) -> Floats:
    """Verdicts without probabilities: 0 or 1."""
    return (soft(rng, count) > 0.5).astype(float)


WORLDS: Mapping[str, tuple[Callable[[np.random.Generator, int], Floats], int]] = {
    "soft, 30 examples": (soft, 30),
    "soft, 60 examples": (soft, 60),
    "close, 60 examples": (close, 60),
    "few large wins, 60 examples": (few_large_wins, 60),
    "right or wrong, 60 examples": (right_or_wrong, 60),
}


@dataclass(slots=True)
class Tally:
    """Counts of one rule in one world: dropped and all, by who was better."""

    better: list[bool] = field(default_factory=list)
    clearly_better: list[bool] = field(default_factory=list)
    worse: list[bool] = field(default_factory=list)
    asked: int = 0
    whole: int = 0

    def add(self, challenger: Floats, incumbent: Floats, rule: Rule) -> None:
        """Race one challenger."""
        differences = challenger - incumbent
        population = len(differences)
        seen, dropped = 0, False
        while seen < population and not dropped:
            seen = min(population, seen + BLOCK)
            dropped = seen < population and rule(differences[:seen], population)
        self.asked += seen
        self.whole += population
        gain = float(differences.mean())
        if gain > 0:
            self.better.append(dropped)
        if gain > _CLEAR:
            self.clearly_better.append(dropped)
        if gain < _WORSE:
            self.worse.append(dropped)


def pairs(
    world: Callable[[np.random.Generator, int], Floats], count: int, worlds: int
) -> Iterator[tuple[Floats, Floats]]:
    """Yield challengers with incumbents, each the better one of two, as early in a search."""
    for seed in range(worlds):
        rng = np.random.default_rng(seed)
        candidates = world(rng, count)
        means = candidates.mean(axis=1)
        for _ in range(20):
            one, two, challenger = rng.integers(len(candidates), size=3)
            best = one if means[one] >= means[two] else two
            yield candidates[challenger], candidates[best]


def main() -> None:
    """Print a table for each world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=200)
    arguments = parser.parse_args()
    for name, (world, count) in WORLDS.items():
        tallies = {rule: Tally() for rule in RULES}
        for challenger, incumbent in pairs(world, count, arguments.worlds):
            for rule, tally in tallies.items():
                tally.add(challenger, incumbent, RULES[rule])
        first = next(iter(tallies.values()))
        print(
            f"\n{name}: {len(first.better)} challengers better, "
            f"{len(first.clearly_better)} by over 2 points, {len(first.worse)} worse by over 3\n"
        )
        print("| rule | better dropped | by over 2 points | worse dropped | calls |")
        print("|---|---|---|---|---|")
        for rule, tally in tallies.items():
            shares = (tally.better, tally.clearly_better, tally.worse)
            cells = " | ".join(f"{np.mean(s):.3f}" for s in shares)
            print(f"| {rule} | {cells} | {tally.asked / tally.whole:.2f} |")


if __name__ == "__main__":
    main()
