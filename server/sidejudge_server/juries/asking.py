"""Asks the members of a jury about one item: all at once, or in turn until one is sure enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sidejudge_server.errors import SidejudgeError
from sidejudge_server.judges.service import EvaluateCommand, EvaluationService
from sidejudge_server.judges.types import Verdict
from sidejudge_server.juries.combining import accepts
from sidejudge_server.juries.types import (
    DeliberateCommand,
    Jury,
    Member,
    MemberAnswer,
)
from sidejudge_server.trust.codec import split_trust_json
from sidejudge_server.trust.types import Certificate
from sidejudge_storage import EvaluationRecord

__all__ = ["Asked", "Asking"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What members said, None for those that were not asked, and their reasons."""

    answers: tuple[MemberAnswer | None, ...]
    reasons: tuple[str, ...]


class Asking:
    """Asks the members of a jury about one item."""

    def __init__(
        self, evaluations: EvaluationService, jury: Jury, command: DeliberateCommand
    ) -> None:
        self._evaluations = evaluations
        self._jury = jury
        self._command = command
        timeout_s = command.timeout_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    async def at_once(self) -> Asked:
        """Ask all members; one that fails ends the others."""
        tasks = [
            asyncio.create_task(self._ask(place))
            for place in range(len(self._jury.members))
        ]
        try:
            records = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()  # those that go on beside a failed one, or for a caller that has gone
        return Asked(
            tuple(map(_answer, records)), tuple(record.reasoning for record in records)
        )

    async def in_turn(
        self, certificates: Sequence[Certificate], *, everybody: bool
    ) -> Asked:
        """Ask members until one is accepted, all of them if ``everybody``.

        Members whose answers could not be accepted whatever they say are left out, but for the first
        one if there is no other: the person who is to decide gets an answer to look at.
        """
        wanted = [
            place
            for place, certificate in enumerate(certificates)
            if everybody or certificate.threshold is not None
        ] or [0]
        answers: list[MemberAnswer | None] = [None] * len(certificates)
        reasons = [""] * len(certificates)
        for place in wanted:
            record = await self._ask(place)
            answer = _answer(record)
            answers[place], reasons[place] = answer, record.reasoning
            if not everybody and accepts(answer, certificates[place]):
                break
        return Asked(tuple(answers), tuple(reasons))

    async def _ask(self, place: int) -> EvaluationRecord:
        member, command = self._jury.members[place], self._command
        remaining_s = None
        if self._deadline is not None:
            remaining_s = max(0.0, self._deadline - time.monotonic())
        try:
            return await self._evaluations.evaluate(
                EvaluateCommand(
                    judge_id=member.judge_id,
                    input=command.input,
                    version=member.version,
                    explain=command.explain,
                    subject=command.subject,
                    group=command.group,
                    labels=command.labels or {},
                    timeout_s=remaining_s,
                    model=member.model,
                )
            )
        except SidejudgeError as error:
            _name_member(error, place, member)
            raise


def _answer(record: EvaluationRecord) -> MemberAnswer:
    suspected = False
    if record.trust_json is not None:
        suspected = bool(split_trust_json(record.trust_json)[0].get("suspicions"))
    return MemberAnswer(
        record.evaluation_id,
        None if record.verdict is None else Verdict(record.verdict),
        record.confidence,
        record.score,
        suspected=suspected,
    )


def _name_member(error: SidejudgeError, place: int, member: Member) -> None:
    """Say in an error which member it is of."""
    name = f"judges/{member.judge_id}/versions/{member.version}"
    model = f" with {member.model}" if member.model else ""
    error.metadata.update(member=str(place), judge_version=name)
    error.message = (
        f"member {place} of the jury, {name}{model}, did not answer, and the jury does not answer"
        f" without it: {error.message}"
    )
    error.args = (error.message,)
