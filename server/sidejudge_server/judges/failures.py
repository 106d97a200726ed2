"""What the registry answers when it cannot do what was asked."""

from __future__ import annotations

from sidejudge_server.errors import AlreadyExistsError, ConflictError, NotFoundError

__all__ = ["name_taken", "no_judge", "outdated"]


def no_judge(judge_id: str) -> NotFoundError:
    """Return the error of a judge that is not in service."""
    name = f"judges/{judge_id}"
    return NotFoundError(
        f"there is no {name}",
        reason="JUDGE_NOT_FOUND",
        resource_type="Judge",
        resource_name=name,
    )


def name_taken(judge_id: str) -> AlreadyExistsError:
    """Return the error of a name that a judge has or had."""
    name = f"judges/{judge_id}"
    return AlreadyExistsError(
        f"{name} exists, perhaps deleted; choose another name",
        reason="JUDGE_ALREADY_EXISTS",
        metadata={"judge": name},
    )


def outdated(*, expected: str, got: str) -> ConflictError:
    """Return the error of a caller who has not seen a judge's latest state."""
    return ConflictError(
        "somebody changed the judge since it was read; read it again and retry",
        reason="ETAG_MISMATCH",
        metadata={"expected": expected, "got": got},
    )
