"""What a run needs to go on after anything: its journal, in a private directory of its own.

``journal.json`` holds all that decides what the run does: the examples as they were, the version that it
started from, the plan with its seed, and the versions of what searches. The call caches beside it
(``*.jsonl``) hold every answer that was paid for. Doing the same again with both gives the same, without
asking anything twice.

Keys are not part of it: how to reach the models is read from the configuration whenever a run goes on.
Everything here holds judged texts, so it is readable by its owner only and deleted with the success of
the run, or some days after another end.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sidejudge_server import __version__
from sidejudge_server.config import ConfigError, LMSettings, Settings
from sidejudge_server.lm.client import model_identity
from sidejudge_server.optimization.spec import RunSpec
from sidejudge_storage import OptimizationRecord

__all__ = ["Journal", "JournalError", "Journals", "undecided"]

_NAME = "journal.json"
_FORMAT = 1
_PRIVATE_FILE = 0o600
_PRIVATE_DIRECTORY = 0o700
# Resolved afresh whenever the run goes on; the first two hold keys.
_PER_LIFE = ("task_lm", "prompt_lm", "model_dir", "work_dir")
_FOR_EVER_DAYS = 36_500.0
_LIBRARIES = ("dspy", "optuna", "numpy")


class JournalError(Exception):
    """A run cannot go on from its journal; the message, half a sentence, says why."""


@dataclass(frozen=True, slots=True)
class Journal:
    """What was read.

    Attributes:
        spec: What the worker gets; its models as configured, not yet resolved.
        dataset_digest: Of the examples.
        warnings: About the data, for the event log.
    """

    spec: RunSpec
    dataset_digest: str
    warnings: tuple[str, ...] = ()


def undecided(record: OptimizationRecord) -> bool:
    """Return whether a run has something left to do: it ran out of its budget or did not succeed."""
    return record.state != "succeeded" or record.outcome == "budget"


class Journals:
    """The journals of a database's runs."""

    def __init__(self, settings: Settings, database_id: str) -> None:
        """Create it.

        Args:
            settings: Of the server.
            database_id: Of the database; the directory may be shared with others.
        """
        self._settings = settings
        self._database_id = database_id
        path = settings.storage.path
        configured = settings.optimization.work_dir
        self._root = configured or path.with_name(f"{path.name}.runs")

    def work_dir(self, run_id: str) -> Path:
        """Return the directory of a run, which may not exist."""
        return (self._root / run_id).absolute()

    def write(self, journal: Journal) -> None:
        """Keep a run's journal; it is on disk on return.

        Raises:
            OSError: It could not be written; nothing is left of it.
        """
        directory = self.work_dir(journal.spec.optimization_id)
        content = self._content(journal)
        document = {"digest": _digest(content), "content": content}
        directory.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        try:
            _write_durably(directory / _NAME, json.dumps(document).encode())
        except OSError:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def read(self, record: OptimizationRecord) -> Journal:
        """Return the journal of a run.

        Raises:
            JournalError: It is gone or damaged, or the run would not do the same again.
        """
        path = self.work_dir(record.optimization_id) / _NAME
        content = _read(path)
        if content.get("format") != _FORMAT:
            raise JournalError(
                "its journal was written by another version of sidejudge"
            )
        self._require_same_versions(content)
        spec = self._spec(content)
        if spec.optimization_id != record.optimization_id:
            raise JournalError("its journal belongs to another run")
        if content["dataset_digest"] != _dataset_digest(record):
            raise JournalError("its journal holds other examples than the run had")
        self._require_same_models(content)
        return Journal(spec, content["dataset_digest"], tuple(content["warnings"]))

    def answers_kept(self, run_id: str) -> int:
        """Return how many answers of models are kept for a run."""
        return sum(
            path.read_bytes().count(b"\n")
            for path in self.work_dir(run_id).glob("*.jsonl")
        )

    def end(
        self, record: OptimizationRecord, *, nothing_to_resume: bool = False
    ) -> None:
        """Delete what a run that has ended does not need any more.

        Nothing is left of one that was decided about. Any other may be resumed, unless nothing is to
        be kept; then its log is left, for whoever wants to know what went wrong.

        Args:
            record: The run's row.
            nothing_to_resume: True for one that did not even begin.
        """
        directory = self.work_dir(record.optimization_id)
        if nothing_to_resume or not undecided(record):
            shutil.rmtree(directory, ignore_errors=True)
        elif not self._settings.optimization.journal_days:
            _delete_all_but_logs(directory)

    def sweep(
        self, ended: Mapping[str, datetime | None], *, now: datetime
    ) -> list[str]:
        """Delete what is too old, and what a run left behind that was not even begun.

        Directories that are not known to be of this database stay, whatever they are.

        Args:
            ended: When the runs of this database have ended that may have a directory, by id;
                None for one that is going.
            now: The time.

        Returns:
            The ids of what was deleted.
        """
        days = min(self._settings.optimization.journal_days, _FOR_EVER_DAYS)
        kept_since = now - timedelta(days=days)
        deleted = []
        for directory in self.directories():
            known = directory.name in ended
            at = ended.get(directory.name)
            old = at is not None and at < kept_since
            if old or (not known and self._is_ours(directory)):
                shutil.rmtree(directory, ignore_errors=True)
                deleted.append(directory.name)
        return deleted

    def _is_ours(self, directory: Path) -> bool:
        """Return whether a run of this database has written a directory's journal."""
        try:
            return _read(directory / _NAME).get("database") == self._database_id
        except JournalError:
            return False

    def directories(self) -> list[Path]:
        """Return the directories of all runs."""
        try:
            return sorted(p for p in self._root.iterdir() if p.is_dir())
        except OSError:
            return []

    # --- Content --------------------------------------------------------------------------------

    def _content(self, journal: Journal) -> dict[str, Any]:
        spec = journal.spec.to_json()
        for name in _PER_LIFE:
            spec.pop(name)
        _refuse_keys(spec)
        return {
            "format": _FORMAT,
            "database": self._database_id,
            "versions": _versions(),
            "models": self._models(),
            "dataset_digest": journal.dataset_digest,
            "warnings": list(journal.warnings),
            "spec": spec,
        }

    def _spec(self, content: Mapping[str, Any]) -> RunSpec:
        prompt_lm = self._settings.prompt_lm
        spec: dict[str, Any] = content["spec"]
        per_life = {
            "task_lm": asdict(self._settings.task_lm),
            "prompt_lm": asdict(prompt_lm) if prompt_lm else None,
            "model_dir": str(self._settings.model_dir),
            "work_dir": str(self.work_dir(spec["optimization_id"])),
        }
        return RunSpec.from_json({**spec, **per_life})

    def _models(self) -> dict[str, dict[str, str]]:
        prompt_lm = self._settings.prompt_lm
        models = {"task": _model(self._settings.task_lm)}
        if prompt_lm is not None:
            models["prompt"] = _model(prompt_lm)
        return models

    def _require_same_models(self, content: Mapping[str, Any]) -> None:
        now, then = self._models(), content["models"]
        for role in ("task", "prompt"):
            if now.get(role) != then.get(role):
                raise JournalError(
                    f"the {role} model was {_told(then.get(role))} and is {_told(now.get(role))} "
                    "now, or its address or settings have changed"
                )

    @staticmethod
    def _require_same_versions(content: Mapping[str, Any]) -> None:
        now, then = _versions(), content["versions"]
        changed = [
            f"{name} {then.get(name)} (now {version})"
            for name, version in now.items()
            if then.get(name) != version
        ]
        if changed:
            raise JournalError(f"it was started with {', '.join(changed)}")


def _model(settings: LMSettings) -> dict[str, str]:
    """Return the name of a model and what tells it from others; an address may hold a password."""
    try:
        identity = model_identity(settings)
    except ConfigError:
        identity = "not one that can be reached"  # which the worker will say
    identity += f" logprobs={settings.logprobs}"
    # What is remembered is kept, and found, by its vectors.
    if settings.embedding_model:
        identity += f" embeds with {settings.embedding_model}"
    return {
        "model": settings.model,
        "identity": hashlib.sha256(identity.encode()).hexdigest(),
    }


def _told(model: Mapping[str, str] | None) -> str:
    return "none" if model is None else model["model"]


def _versions() -> dict[str, str]:
    return {
        "sidejudge": __version__,
        **{name: importlib.metadata.version(name) for name in _LIBRARIES},
    }


def _dataset_digest(record: OptimizationRecord) -> str:
    return str(json.loads(record.dataset_json)["digest"])


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise JournalError("its journal is gone") from None
    except OSError as error:
        raise JournalError(f"its journal cannot be read: {error.strerror}") from error
    try:
        document = json.loads(data)
        content: dict[str, Any] = document["content"]
        whole = _digest(content) == document["digest"]
    except (ValueError, KeyError, TypeError):
        whole = False
        content = {}
    if not whole:
        raise JournalError("its journal is damaged")
    return content


def _write_durably(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all; it and its name are on disk on return."""
    draft = path.with_suffix(".draft")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with os.fdopen(os.open(draft, flags, _PRIVATE_FILE), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    for directory in (path.parent, path.parent.parent):
        number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _delete_all_but_logs(directory: Path) -> None:
    for path in directory.glob("*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix != ".log":
            path.unlink(missing_ok=True)


def _refuse_keys(value: object) -> None:
    """Raise for a document that holds the settings of a model: keys are never written to disk."""
    if isinstance(value, Mapping):
        if "api_key" in value:
            raise ValueError("the settings of a model do not belong into a journal")
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            _refuse_keys(item)
