"""How an experiment is to end, and what of that can be."""

from __future__ import annotations

from sidejudge_server.errors import FieldViolation, InvalidRequestError
from sidejudge_server.experiments.status import Decision
from sidejudge_server.experiments.types import Experiment

__all__ = ["Conclusion", "settled", "version_to_deploy"]


class Conclusion:
    """How an experiment is to end."""

    __slots__ = ("author", "decision", "deploy_winner", "reason", "winner")

    def __init__(
        self,
        decision: Decision | None,
        *,
        winner: str = "",
        deploy_winner: bool = False,
        author: str = "",
        reason: str = "",
    ) -> None:
        """Say how it ends.

        Args:
            decision: None for what was decided already.
            winner: The arm that won, "" for the one that was decided, if any.
            deploy_winner: Whether the winner is to serve.
            author: Who concludes.
            reason: Why.
        """
        self.decision = decision
        self.winner = winner
        self.deploy_winner = deploy_winner
        self.author = author
        self.reason = reason


def settled(experiment: Experiment, conclusion: Conclusion) -> tuple[Decision, str]:
    """Return decision and winner of a conclusion.

    Raises:
        InvalidRequestError: Nothing was decided, or there is no such winner.
    """
    decision = conclusion.decision or experiment.status.decision
    violations = []
    if decision is Decision.RUNNING:
        violations.append(
            FieldViolation(
                "decision",
                "nothing was decided yet: say what you decide, such as DECISION_FUTILE",
            )
        )
    winner = conclusion.winner
    if decision is Decision.SHIP and not winner:
        winner = experiment.status.winner
    candidates = [arm.arm_id for arm in experiment.candidates]
    if decision is Decision.SHIP and winner not in candidates:
        violations.append(
            FieldViolation("winner", f"must be one of {', '.join(candidates)}")
        )
    elif decision is not Decision.SHIP and winner:
        violations.append(FieldViolation("winner", "only a candidate is shipped"))
    if conclusion.deploy_winner and not winner:
        violations.append(FieldViolation("deploy_winner", "there is no winner"))
    if conclusion.deploy_winner and experiment.judge_id is None:
        violations.append(
            FieldViolation("deploy_winner", "the arms are the caller's own")
        )
    if violations:
        raise InvalidRequestError(violations)
    return decision, winner


def version_to_deploy(
    experiment: Experiment, conclusion: Conclusion, winner: str
) -> int | None:
    """Return the version that a conclusion deploys, None if it deploys none."""
    if not conclusion.deploy_winner:
        return None
    arm = experiment.arm(winner)
    return arm.version if arm is not None else None
