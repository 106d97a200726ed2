"""Juries: made once, asked often. Each member's answer is an evaluation of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sidejudge_server.errors import (
    FieldViolation,
    InvalidRequestError,
    NotFoundError,
)
from sidejudge_server.experiments.assignment import hash_to_unit
from sidejudge_server.judges.codec import canonical_json, input_to_json
from sidejudge_server.judges.fitting import fitting_input
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import Claim, RequestLog, commit
from sidejudge_server.judges.service import EvaluationService
from sidejudge_server.juries.asking import Asking
from sidejudge_server.juries.codec import (
    deliberation_of,
    deliberation_record,
    jury_of,
    jury_record,
)
from sidejudge_server.juries.knowledge import JuryKnowledge
from sidejudge_server.juries.outcome import of_cascade, of_jury
from sidejudge_server.juries.types import (
    Comparison,
    DeliberateCommand,
    Deliberation,
    Jury,
    JuryMode,
    Member,
    Weights,
)
from sidejudge_server.trust.types import Target
from sidejudge_storage import FeedbackRecord, Storage
from sidejudge_storage.ids import new_id

__all__ = ["CreateJury", "JuryService"]


@dataclass(frozen=True, slots=True)
class CreateJury:
    """A jury to be made; fields as of `types.Jury`."""

    jury_id: str
    display_name: str
    mode: JuryMode
    members: tuple[Member, ...]
    audit_share: float
    request_id: str = ""


class JuryService:
    """Makes juries, asks them, and says what labels say of them. Belongs to one event loop."""

    def __init__(
        self,
        storage: Storage,
        judges: JudgeRegistry,
        evaluations: EvaluationService,
        requests: RequestLog,
        *,
        models: Sequence[str] = (),
    ) -> None:
        """Take the names of further models that members may answer with."""
        self._storage = storage
        self._judges = judges
        self._evaluations = evaluations
        self._requests = requests
        self._models = frozenset(models)
        self._juries: dict[str, Jury] = {}
        self._knowledge = JuryKnowledge(storage)
        self._creating = asyncio.Lock()

    async def load(self) -> None:
        """Read all juries."""
        for record in await self._storage.juries.all():
            self._juries[record.jury_id] = jury_of(record)

    def hear(self, records: Sequence[FeedbackRecord]) -> None:
        """Hear of feedback that is on disk."""
        judges = {record.judge_id for record in records}
        self._knowledge.new_labels(
            [
                jury.jury_id
                for jury in self._juries.values()
                if any(member.judge_id in judges for member in jury.members)
            ]
        )

    def get(self, jury_id: str) -> Jury:
        """Return a jury; NotFoundError if there is none."""
        jury = self._juries.get(jury_id)
        if jury is None:
            raise _not_found("jury", "Jury", f"juries/{jury_id}")
        return jury

    def list(self, *, after: str | None, limit: int) -> Sequence[Jury]:
        """Return juries by id."""
        ids = sorted(i for i in self._juries if after is None or i > after)
        return [self._juries[jury_id] for jury_id in ids[:limit]]

    async def create(self, command: CreateJury) -> Jury:
        """Make a jury.

        Raises:
            InvalidRequestError: Its id is taken, members don't go together, or a model is not known.
            NotFoundError: There is no such judge or version.
            StorageUnavailableError: It could not be stored.
        """

        async def perform(claim: Claim) -> Jury:
            async with self._creating:
                jury = self._checked(command)
                await commit(self._storage, jury_record(jury), *claim(jury.jury_id))
                self._juries[jury.jury_id] = jury
            return jury

        async def recall(jury_id: str) -> Jury:
            return self.get(jury_id)

        return await self._requests.once(
            command.request_id,
            method="CreateJury",
            fingerprint=canonical_json(asdict(command) | {"request_id": ""}),
            perform=perform,
            recall=recall,
        )

    async def deliberate(self, command: DeliberateCommand) -> Deliberation:
        """Ask a jury and return what it said once it is on disk.

        Raises:
            NotFoundError: There is no such jury.
            InvalidRequestError: The input does not fit a member, or a target was named where there is
                none, or none where there must be one.
            SidejudgeError: A member did not answer; its error, with the member in it. No jury answers
                without all members that it is to ask.
        """

        async def perform(claim: Claim) -> Deliberation:
            jury = self.get(command.jury_id)
            self._require_fitting(jury, command)
            deliberation_id = new_id()
            said = await self._said(jury, command, deliberation_id)
            record = deliberation_record(said, group=command.group)
            await commit(self._storage, record, *claim(deliberation_id))
            return said

        return await self._requests.once(
            command.request_id,
            method="Deliberate",
            fingerprint=_fingerprint(command),
            perform=perform,
            recall=self.get_deliberation,
        )

    async def get_deliberation(self, deliberation_id: str) -> Deliberation:
        """Return a deliberation; NotFoundError if there is none."""
        record = await self._storage.deliberations.get(deliberation_id)
        if record is None:
            name = f"deliberations/{deliberation_id}"
            raise _not_found("deliberation", "Deliberation", name)
        return deliberation_of(record)

    async def list_deliberations(
        self, jury_id: str, *, audited: bool, before: str | None, limit: int
    ) -> Sequence[Deliberation]:
        """Return deliberations, newest first; ``audited`` for those that are to be labelled only."""
        self.get(jury_id)
        found = await self._storage.deliberations.newest(
            jury_id, audited=audited, before=before, limit=limit
        )
        return [deliberation_of(record) for record in found]

    async def compare(self, jury_id: str) -> tuple[Comparison, Weights]:
        """Put a jury beside its members by labels; also what members count now."""
        jury = self.get(jury_id)
        return await self._knowledge.compare(jury), await self._knowledge.weights(jury)

    def _checked(self, command: CreateJury) -> Jury:
        """Return the jury, all of whose members exist and answer alike."""
        problems = []
        if command.jury_id in self._juries:
            problems.append(FieldViolation("jury_id", "is taken; choose another one"))
        specs = []
        for place, member in enumerate(command.members):
            version = self._judges.get_version(member.judge_id, member.version)
            specs.append(version.program)
            if member.model and member.model not in self._models:
                known = ", ".join(sorted(self._models)) or "none"
                problems.append(
                    FieldViolation(
                        f"jury.members[{place}].model",
                        f"is not one of the server's further models ({known}); add a section"
                        f" [models.{member.model}] to its configuration",
                    )
                )
        if len({spec.scores for spec in specs}) > 1:
            text = "must all answer verdicts, or all answer scores"
            problems.append(FieldViolation("jury.members", text))
        elif specs[0].scores and command.mode is not JuryMode.AVERAGE:
            text = "must be MODE_AVERAGE for members that answer scores"
            problems.append(FieldViolation("jury.mode", text))
        if problems:
            raise InvalidRequestError(problems)
        return Jury(
            command.jury_id,
            command.display_name,
            command.mode,
            command.members,
            command.audit_share,
            scores=specs[0].scores,
            binary=all(spec.binary for spec in specs),
            created_at=datetime.now(UTC),
        )

    def _require_fitting(self, jury: Jury, command: DeliberateCommand) -> None:
        """Refuse what a later member would refuse before the first one is paid for."""
        if jury.mode is JuryMode.CASCADE and command.target is None:
            text = "is required by a cascade: it says which answers are good enough"
            raise InvalidRequestError([FieldViolation("selection", text)])
        if jury.mode is not JuryMode.CASCADE and command.target is not None:
            text = "is only for cascades; make one of the same members"
            raise InvalidRequestError([FieldViolation("selection", text)])
        for member in jury.members:
            self._judges.get_version(member.judge_id, member.version)
            fitting_input(self._judges.get(member.judge_id), command.input)

    async def _said(
        self, jury: Jury, command: DeliberateCommand, deliberation_id: str
    ) -> Deliberation:
        share = jury.audit_share
        audited = hash_to_unit("deliberation", deliberation_id) < share
        asking = Asking(self._evaluations, jury, command)
        audit_probability = share if audited else None
        if jury.mode is JuryMode.CASCADE:
            certificates = await self._knowledge.certificates(jury, _target(command))
            found = await asking.in_turn(certificates, everybody=audited)
            return of_cascade(
                jury, found, certificates, deliberation_id, audit_probability
            )
        weights = await self._knowledge.weights(jury)
        found = await asking.at_once()
        return of_jury(jury, found, weights, deliberation_id, audit_probability)


def _target(command: DeliberateCommand) -> Target:
    if command.target is None:
        raise AssertionError("a cascade is not asked without a target")
    return command.target


def _fingerprint(command: DeliberateCommand) -> str:
    return canonical_json(
        [
            command.jury_id,
            input_to_json(command.input),
            command.explain,
            command.subject,
            command.group,
            dict(command.labels or {}),
            None if command.target is None else asdict(command.target),
        ]
    )


def _not_found(kind: str, resource_type: str, name: str) -> NotFoundError:
    return NotFoundError(
        f"there is no {name}",
        reason=f"{kind.upper()}_NOT_FOUND",
        resource_type=resource_type,
        resource_name=name,
    )
