"""How many LM calls the memory algorithm may take, and how it spreads them. Pure arithmetic.

With 50 examples a run takes at most 60 calls beyond those for the version that serves, the guidelines
and the held-out examples of the gate included, and two more for each further example.
"""

from __future__ import annotations

from sidejudge_server.training.splits import SHARES, Split

__all__ = [
    "CANDIDATES",
    "MAX_BATCHES",
    "SHOWN",
    "call_bound",
    "first_look",
]

SHOWN = (2, 5)
"""Remembered examples in the prompt: what competes."""
CANDIDATES = len(SHOWN) + 2
"""Each number of examples, guidelines, and both together."""
MAX_BATCHES = 3
"""Calls of the model that writes guidelines."""

_BOUND = 60
_BOUND_EXAMPLES = 50
_CALLS_PER_FURTHER_EXAMPLE = 2
_EMBEDDING_CALLS = 4
"""Where there is an embedding model: training, looked-at, other validation and held-out examples."""
_SMALLEST_LOOK = 4


def call_bound(examples: int) -> int:
    """Return the most LM calls of a run beyond those for the version that serves.

    Args:
        examples: On all three sides of the split together.
    """
    further = max(0, examples - _BOUND_EXAMPLES)
    return _BOUND + _CALLS_PER_FURTHER_EXAMPLE * further


def first_look(train: int, validation: int) -> int:
    """Return on how many validation examples all candidates are compared.

    What the bound leaves after the guidelines, the other validation examples for the best candidate
    and the held-out examples for the gate, spread over the candidates; at least 4, as far as there
    are so many.

    Args:
        train: Training examples.
        validation: Validation examples.
    """
    test = round(validation * SHARES[Split.TEST] / SHARES[Split.VALIDATION])
    kept = MAX_BATCHES + _EMBEDDING_CALLS + validation + test
    left = call_bound(train + validation + test) - kept
    return min(validation, max(_SMALLEST_LOOK, left // (CANDIDATES - 1)))
