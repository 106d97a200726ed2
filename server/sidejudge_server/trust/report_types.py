"""A judge beside people, as data; `trust.report` makes it."""

from __future__ import annotations

from dataclasses import dataclass

from sidejudge_server.trust.types import Figure

__all__ = ["Annotators", "Bin", "Cell", "JudgeReport", "Part"]


@dataclass(frozen=True, slots=True)
class Cell:
    """How many items people label so and the judge answers so."""

    label: str
    verdict: str
    items: int


@dataclass(frozen=True, slots=True)
class Part:
    """Agreement on a part of the items."""

    name: str
    items: int
    agreement: Figure


@dataclass(frozen=True, slots=True)
class Bin:
    """Items of about one confidence."""

    items: int
    mean_confidence: float
    agreement: Figure


@dataclass(frozen=True, slots=True)
class Annotators:
    """The alternative annotator test (Calderon et al., ACL 2025) on items that all of them labelled.

    ``winning_rate`` and ``advantage`` are as of `stats.alt_test.AltTest`, None with a reason.
    """

    annotators: int
    items: int
    winning_rate: float | None
    advantage: float | None
    may_replace: bool
    reason: str


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """Figures with 95 % intervals. Of verdict judges fail is what is to be found (positive).

    Figures that do not exist for the kind of judge, or cannot be said, are None.
    """

    items: int
    agreement: Figure | None
    true_positive_rate: Figure | None
    true_negative_rate: Figure | None
    balanced_accuracy: Figure | None
    kappa: Figure | None
    cells: tuple[Cell, ...]
    bins: tuple[Bin, ...]
    mean_absolute_error: Figure | None
    spearman: float | None
    kendall_tau: float | None
    by_source: tuple[Part, ...]
    by_slice: tuple[Part, ...]
    annotators: Annotators
