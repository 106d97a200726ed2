"""How often a learned head is accepted: on noise, where it must not be, and on planted signals.

``python -m bench.learned_head [--repeats N]`` prints the share of accepted heads by number of labels,
quality of the LM and what the neighbours know, and what accepted heads are worth on new items. The
bars of `sidejudge_server.optimization.head` come from this table; ADR 0014 has it.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace

import numpy as np

from sidejudge_server.judges.decision import decide, decide_verdict
from sidejudge_server.judges.kinds import JudgeSpec, initial_program
from sidejudge_server.judges.types import (
    ArtifactInput,
    JudgeKind,
    LabelOffsets,
    MemoryExample,
    Neighbour,
    Recalled,
    Verdict,
    VerdictHead,
    VerdictProbabilities,
)
from sidejudge_server.optimization import head as heads
from sidejudge_server.optimization.refit import fit_offsets

SAFETY = initial_program(JudgeSpec(JudgeKind.SAFETY))
NEW_ITEMS = 400
BARS = (1.0, 1.5, heads.MIN_STANDARD_ERRORS)
"""In standard errors of the out-of-fold gain."""


@dataclass(frozen=True)
class World:
    """Items in clusters; a cluster's label is that of its items as often as ``agreement`` says."""

    lm_distance: float
    agreement: float
    clusters: int = 12
    passing: float = 0.5

    def draw(
        self, rng: np.random.Generator, count: int, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return clusters, labels and probabilities of ``count`` items."""
        cluster = rng.integers(self.clusters, size=count)
        agrees = rng.random(count) < self.agreement
        label = np.where(agrees, labels[cluster], rng.random(count) < self.passing)
        log_odds = rng.normal(size=count) + self.lm_distance * (label - 0.5)
        # A small model is too sure and leans to one side.
        stated = 2 * log_odds * max(self.lm_distance, 0.5) + 1.0
        chance = 1 / (1 + np.exp(-stated))
        return cluster, label.astype(bool), chance

    def similarity(
        self, rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray
    ) -> np.ndarray:
        """Return similarities as the lexical index gives them: small, larger within a cluster."""
        noise = rng.beta(1.5, 12, size=(len(rows), len(columns)))
        same = rows[:, None] == columns[None, :]
        return np.clip(noise + same * rng.beta(3, 9, size=noise.shape), 0, 1)


def probability(chance: float) -> VerdictProbabilities:
    """Return the LM's answer."""
    return VerdictProbabilities(chance, 0.0, 1 - chance)


@dataclass(frozen=True)
class Outcome:
    """Of one fit: its gain in standard errors (-inf if it is too small), and on new items."""

    evidence: float
    gain: float


def one(world: World, count: int, seed: int) -> Outcome:
    """Fit once and look at what it is worth."""
    rng = np.random.default_rng(seed)
    labels = rng.random(world.clusters) < world.passing
    cluster, truth, chances = world.draw(rng, count, labels)
    similarity = world.similarity(rng, cluster, cluster)
    verdicts = [Verdict.PASS if t else Verdict.FAIL for t in truth]
    probabilities = [probability(float(c)) for c in chances]
    groups = [str(i) for i in range(count)]
    rule = fit_offsets(probabilities, verdicts, binary=True, old=LabelOffsets())
    fit = heads.fit_verdict_head(
        probabilities,
        verdicts,
        groups=groups,
        corpus=heads.Corpus(similarity, groups, verdicts=verdicts),
        rule=heads.RuleResult(rule.worths, rule.right),
        binary=True,
    )
    more_right = (sum(fit.right) - sum(rule.right)) / count if fit else 0.0
    if fit is None or min(fit.gain, more_right) < heads.MIN_GAIN:
        return Outcome(-math.inf, math.nan)
    assert isinstance(fit.head, VerdictHead)
    examples = [
        MemoryExample(str(i), ArtifactInput("x"), verdict=v)
        for i, v in enumerate(verdicts)
    ]
    headed = replace(SAFETY, head=fit.head)
    new_cluster, new_truth, new_chances = world.draw(rng, NEW_ITEMS, labels)
    near = world.similarity(rng, new_cluster, cluster)
    gain = 0.0
    for i in range(NEW_ITEMS):
        order = np.argsort(-near[i], kind="stable")[: heads.NEIGHBOURS]
        recalled = Recalled(
            tuple(Neighbour(examples[j], float(near[i, j])) for j in order)
        )
        answer = probability(float(new_chances[i]))
        right = Verdict.PASS if new_truth[i] else Verdict.FAIL
        new = decide_verdict(headed, answer, recalled).verdict is right
        old = decide(answer, rule.offsets, binary=True).verdict is right
        gain += float(new) - float(old)
    return Outcome(fit.gain / fit.standard_error, gain / NEW_ITEMS)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--counts", type=int, nargs="*", default=[30, 60, 120, 300])
    arguments = parser.parse_args()
    worlds = {
        "noise, LM at chance": World(0.0, 0.0),
        "noise, AUC .76": World(1.0, 0.0),
        "noise, AUC .92": World(2.0, 0.0),
        "noise, AUC .76, 85 % pass": World(1.0, 0.0, passing=0.85),
        "clusters agree 60 %, LM at chance": World(0.0, 0.6),
        "clusters agree 60 %, AUC .76": World(1.0, 0.6),
        "clusters agree 90 %, LM at chance": World(0.0, 0.9),
        "clusters agree 90 %, AUC .76": World(1.0, 0.9),
    }
    heading = "".join(f"  {f'bar {bar:g}':>8}   gain  worst" for bar in BARS)
    print(f"{'world':36} {'labels':>6}{heading}")
    for name, world in worlds.items():
        for count in arguments.counts:
            found = [one(world, count, seed) for seed in range(arguments.repeats)]
            print(f"{name:36} {count:6}", end="")
            for bar in BARS:
                gains = [o.gain for o in found if o.evidence >= bar]
                mean = f"{np.mean(gains):+.3f}" if gains else "-"
                worst = f"{min(gains):+.3f}" if gains else "-"
                share = len(gains) / len(found)
                print(f"  {share:8.3f} {mean:>6} {worst:>6}", end="")
            print(flush=True)


if __name__ == "__main__":
    main()
