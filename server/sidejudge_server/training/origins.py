"""Where training examples come from."""

from __future__ import annotations

from typing import Final

__all__ = ["FEEDBACK", "IMPORT", "REAL", "SYNTHETIC"]

FEEDBACK: Final = "feedback"
IMPORT: Final = "import"
SYNTHETIC: Final = "synthetic"
"""Written by a language model; its label is nobody's."""

REAL: Final = (FEEDBACK, IMPORT)
