"""Sticky assignment: the same subject always gets the same arm, without any memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

__all__ = ["assign", "choose", "hash_to_unit"]

_BITS = 53  # what a float holds exactly, so the result stays below 1
_RANGE = float(1 << _BITS)


def hash_to_unit(*parts: str) -> float:
    """Map strings to a number in [0, 1) that looks uniform and never changes.

    The parts are length-prefixed before hashing with BLAKE2b, so ("ab", "c") and ("a", "bc")
    are unrelated. The first 53 bits of the digest are the number.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return (int.from_bytes(digest.digest(), "big") >> (64 - _BITS)) / _RANGE


def choose(unit: float, weights: Mapping[str, float]) -> str:
    """Return the name in whose part of [0, 1) ``unit`` falls; parts are proportional to weights.

    Args:
        unit: Number in [0, 1).
        weights: Non-negative weight by name; names take their parts in the mapping's order.

    Raises:
        ValueError: There is no positive weight, or one is negative or not finite.
    """
    if any(not (math.isfinite(w) and w >= 0) for w in weights.values()):
        raise ValueError("weights must be finite and not negative")
    positive = {name: weight for name, weight in weights.items() if weight > 0}
    if not positive:
        raise ValueError("at least one weight must be positive")
    point = unit * math.fsum(positive.values())
    reached = 0.0
    name = ""
    for name, weight in positive.items():
        reached += weight
        if point < reached:
            return name
    return name  # rounding: the last part ends at the total


def assign(
    experiment_id: str, subject: str, *, salt: str, weights: Mapping[str, float]
) -> str:
    """Return the arm of a subject in an experiment.

    The arm depends only on the arguments: it is the same after a restart, on every server and
    in every order of arrival, and independent between experiments or salts. Changing weights
    moves subjects only where the parts move; put a growing arm first to keep its subjects.

    Args:
        experiment_id: Identifies the experiment.
        subject: Unit of assignment, such as a task or user id.
        salt: Changes all assignments; for a fresh start within one experiment.
        weights: Non-negative weight by arm, in a fixed order.

    Raises:
        ValueError: There is no positive weight, or one is negative or not finite.
    """
    return choose(hash_to_unit(experiment_id, salt, subject), weights)
