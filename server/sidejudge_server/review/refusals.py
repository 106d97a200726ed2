"""Why items cannot be claimed or given back, each with all items that it is about."""

from __future__ import annotations

from collections.abc import Iterable

from sidejudge_server.errors import (
    ConflictError,
    FailedPreconditionError,
    NotFoundError,
)

__all__ = [
    "claim_expired",
    "claim_not_held",
    "item_claimed",
    "item_labelled",
    "item_not_drawn",
]

_INSTEAD = "raise annotators_per_item, or claim without naming items"


def item_not_drawn(judge_id: str, ids: Iterable[str]) -> NotFoundError:
    """Return the error for evaluations that are not in the queue of a judge."""
    names = _names(ids)
    return NotFoundError(
        f"not in the review queue of judges/{judge_id}: {names}; see ListReviewQueue",
        reason="REVIEW_ITEM_NOT_FOUND",
        resource_type="ReviewItem",
        resource_name=names,
    )


def item_labelled(ids: Iterable[str]) -> FailedPreconditionError:
    """Return the error for items that need no label of this annotator."""
    names = _names(ids)
    return FailedPreconditionError(
        f"labelled by you or by as many as are wanted: {names}; {_INSTEAD}",
        reason="REVIEW_ITEM_LABELLED",
        metadata={"evaluations": names},
    )


def item_claimed(ids: Iterable[str]) -> ConflictError:
    """Return the error for items that others hold."""
    names = _names(ids)
    return ConflictError(
        f"claimed by others: {names}; {_INSTEAD}",
        reason="REVIEW_ITEM_CLAIMED",
        metadata={"evaluations": names},
    )


def claim_not_held(ids: Iterable[str], annotator: str) -> FailedPreconditionError:
    """Return the error for items that an annotator has not claimed, or is done with."""
    names = _names(ids)
    return FailedPreconditionError(
        f"{annotator} holds no claim on {names}; nothing was given back",
        reason="CLAIM_NOT_HELD",
        metadata={"evaluations": names, "annotator": annotator},
    )


def claim_expired(ids: Iterable[str], annotator: str) -> FailedPreconditionError:
    """Return the error for items whose claims have expired."""
    names = _names(ids)
    return FailedPreconditionError(
        f"the claims of {annotator} on {names} have expired, and others may have got the items;"
        " nothing was given back, claim items again",
        reason="CLAIM_EXPIRED",
        metadata={"evaluations": names, "annotator": annotator},
    )


def _names(ids: Iterable[str]) -> str:
    return ",".join(f"evaluations/{i}" for i in sorted(ids))
