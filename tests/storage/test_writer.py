"""Units are written wholly or not at all, many in one transaction, and nobody suffers for others."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from sidejudge_storage import (
    DuplicateKeyError,
    EvaluationFilter,
    RejectExample,
    ReplaceJudge,
    ReplaceOptimization,
    RevisionConflictError,
    RowMissingError,
    Storage,
    StorageError,
    WriteFailedError,
    transaction,
)
from sidejudge_storage import writer as writer_module
from tests.storage import samples


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = Storage.open(tmp_path / "s.duckdb")
    yield opened
    opened.close_blocking()


async def _ids(storage: Storage) -> set[str]:
    found = await storage.evaluations.list(EvaluationFilter(), before=None, limit=9999)
    assert len({e.evaluation_id for e in found}) == len(found)
    return {e.evaluation_id for e in found}


def test_concurrent_writers_share_commits_and_all_rows_are_there(
    storage: Storage,
) -> None:
    """64 tasks need far fewer commits than writes, and each reads what it wrote."""
    rounds = 10

    async def task() -> None:
        for _ in range(rounds):
            record = samples.evaluation()
            await storage.write(record)
            assert await storage.evaluations.existing([record.evaluation_id])

    async def work() -> int:
        await asyncio.gather(*(task() for _ in range(64)))
        return len(await _ids(storage))

    written = asyncio.run(work())

    assert written == 64 * rounds
    assert storage._database.last_commit <= 64 * rounds / 4


def test_unit_is_stored_wholly_or_not_at_all(storage: Storage) -> None:
    """Rows that stand before the failing command are not stored either."""
    record = samples.evaluation()

    async def work() -> set[str]:
        await storage.write(samples.judge())
        with pytest.raises(DuplicateKeyError):
            await storage.write(record, samples.judge())
        return await _ids(storage)

    assert asyncio.run(work()) == set()


def test_failing_units_do_not_fail_their_neighbours(storage: Storage) -> None:
    """Of many units in one flush only the culprits hear of an error."""
    records = [samples.evaluation() for _ in range(40)]

    async def work() -> tuple[list[object], set[str]]:
        await storage.write(samples.judge())
        units = [[r] for r in records]
        units[7].append(samples.judge())
        units[23].append(ReplaceJudge(samples.judge(), expected_revision=9))
        units[31].append(RejectExample("none", "superseded", ""))
        units[39].append(ReplaceOptimization(samples.optimization()))
        outcomes = await asyncio.gather(
            *(storage.write(*u) for u in units), return_exceptions=True
        )
        return [type(o) for o in outcomes], await _ids(storage)

    outcomes, stored = asyncio.run(work())

    expected: list[object] = [type(None)] * 40
    expected[7] = DuplicateKeyError
    expected[23] = RevisionConflictError
    expected[31] = RowMissingError
    expected[39] = RowMissingError
    culprits = {records[i].evaluation_id for i in (7, 23, 31, 39)}
    assert outcomes == expected
    assert stored == {r.evaluation_id for r in records} - culprits


def test_only_one_of_concurrent_replacements_of_a_judge_succeeds(
    storage: Storage,
) -> None:
    """The revision is checked and raised in one step."""
    judge = samples.judge()

    async def work() -> tuple[int, str]:
        await storage.write(judge)
        outcomes = await asyncio.gather(
            *(
                storage.write(
                    ReplaceJudge(
                        replace(judge, revision=2, display_name=f"name {i}"),
                        expected_revision=1,
                    )
                )
                for i in range(8)
            ),
            return_exceptions=True,
        )
        winners = [i for i, o in enumerate(outcomes) if o is None]
        assert all(o is None or isinstance(o, RevisionConflictError) for o in outcomes)
        (stored,) = await storage.judges.all()
        return winners[0] if len(winners) == 1 else -1, stored.display_name

    winner, name = asyncio.run(work())

    assert name == f"name {winner}"


def test_later_commands_of_a_unit_see_earlier_ones(storage: Storage) -> None:
    """A row can be made and changed, and changed again, in one unit."""
    run = samples.optimization()
    example = samples.example()

    async def work() -> tuple[str, str | None]:
        await storage.write(
            run,
            ReplaceOptimization(replace(run, state="running")),
            ReplaceOptimization(replace(run, state="failed", error_json="{}")),
            example,
            RejectExample(example.example_id, "duplicate", ""),
        )
        stored = await storage.optimizations.get(run.optimization_id)
        rejected = await storage.examples.get(example.example_id)
        assert stored is not None
        assert rejected is not None
        return stored.state, rejected.rejection

    assert asyncio.run(work()) == ("failed", "duplicate")


@pytest.mark.parametrize(
    "record",
    [
        samples.judge(),
        samples.version(),
        samples.deployment(),
        samples.optimization(optimization_id="o1"),
        samples.policy(),
    ],
    ids=lambda r: type(r).__name__,
)
def test_taken_key_is_named_as_such(storage: Storage, record: object) -> None:
    """Judges, versions, deployments, optimizations and policies exist once."""

    async def work() -> None:
        await storage.write(record)
        with pytest.raises(DuplicateKeyError):
            await storage.write(record)

    asyncio.run(work())


def test_unit_larger_than_a_statement_is_written_in_several(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long import is one unit all the same."""
    monkeypatch.setattr(transaction, "_STATEMENT_CHARS", 5_000)
    records = [samples.evaluation() for _ in range(50)]

    async def work() -> set[str]:
        await storage.write(*records)
        return await _ids(storage)

    assert asyncio.run(work()) == {r.evaluation_id for r in records}


def test_full_queue_refuses_and_recovers(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stalled disk fills the queue, not the memory; what was accepted is stored."""
    monkeypatch.setattr(writer_module, "_MAX_WAITING_UNITS", 3)

    async def work() -> list[BaseException | None]:
        outcomes = await asyncio.gather(
            *(storage.write(samples.evaluation()) for _ in range(200)),
            return_exceptions=True,
        )
        await storage.write(samples.evaluation())
        stored = await _ids(storage)
        assert len(stored) == 1 + sum(o is None for o in outcomes)
        return outcomes

    outcomes = asyncio.run(work())

    assert any(isinstance(o, WriteFailedError) for o in outcomes)


def test_closing_writes_what_waits(tmp_path: Path) -> None:
    """Close is a barrier: every write before it is answered and stored."""
    path = tmp_path / "c.duckdb"
    records = [samples.evaluation() for _ in range(100)]

    async def work() -> set[str]:
        storage = Storage.open(path)
        writes = [asyncio.create_task(storage.write(r)) for r in records]
        await asyncio.sleep(0)
        await storage.close()
        await asyncio.gather(*writes)
        again = Storage.open(path)
        try:
            return await _ids(again)
        finally:
            await again.close()

    assert asyncio.run(work()) == {r.evaluation_id for r in records}


def test_closed_storage_refuses(tmp_path: Path) -> None:
    """Neither reads nor writes hang after the end; closing twice is fine."""

    async def work() -> None:
        storage = Storage.open(tmp_path / "c.duckdb")
        await storage.close()
        await storage.close()
        with pytest.raises(WriteFailedError):
            await storage.write(samples.evaluation())
        with pytest.raises(StorageError):
            await storage.judges.all()

    asyncio.run(work())


def test_cancelled_caller_does_not_disturb_the_flush(storage: Storage) -> None:
    """The unit of a caller that left is written, and so are the others."""
    first, second = samples.evaluation(), samples.evaluation()

    async def work() -> set[str]:
        task = asyncio.create_task(storage.write(first))
        await asyncio.sleep(0)
        task.cancel()
        await storage.write(second)
        return await _ids(storage)

    assert asyncio.run(work()) == {first.evaluation_id, second.evaluation_id}


_FULL_DISK = """
import asyncio, os, resource, signal, sys
from pathlib import Path
from sidejudge_storage import EvaluationFilter, Storage, WriteFailedError
from tests.storage import samples

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])

async def main():
    storage = Storage.open(path)
    await storage.write(samples.evaluation(evaluation_id="before"))
    wal = path.with_name(path.name + ".wal")
    limit = wal.stat().st_size + 700
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    refused = 0
    for i in range(6):
        big = samples.evaluation(evaluation_id=f"refused-{i}", reasoning="x" * 9000)
        try:
            await storage.write(big)
        except WriteFailedError:
            refused += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await storage.write(samples.evaluation(evaluation_id="after"))
    await storage.write(samples.evaluation(evaluation_id="later"))
    found = await storage.evaluations.list(EvaluationFilter(), before=None, limit=99)
    print(refused, *sorted(e.evaluation_id for e in found), flush=True)
    os._exit(0)

asyncio.run(main())
"""


# The log may grow, the file may not: every checkpoint fails.
_NO_CHECKPOINT = """
import asyncio, os, resource, signal, sys
from pathlib import Path
from sidejudge_storage import EvaluationFilter, Storage, StorageOptions
from tests.storage import samples

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])

async def main():
    storage = Storage.open(path, StorageOptions(checkpoint_bytes=20_000))
    for _ in range(50):
        await storage.write(samples.evaluation(reasoning=os.urandom(3000).hex()))
    limit = path.stat().st_size
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    for _ in range(30):
        record = samples.evaluation(reasoning=os.urandom(3000).hex())
        await storage.write(record)
        assert await storage.evaluations.existing([record.evaluation_id])
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    for _ in range(20):
        await storage.write(samples.evaluation(reasoning=os.urandom(3000).hex()))
    found = await storage.evaluations.list(EvaluationFilter(), before=None, limit=999)
    print(len(found), flush=True)
    os._exit(0)

asyncio.run(main())
"""


def _run(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
    )


def test_writer_survives_a_full_disk(tmp_path: Path) -> None:
    """Nothing is acknowledged while the disk is full; afterwards all is as if it had not been."""
    path = tmp_path / "full.duckdb"

    child = _run(_FULL_DISK, path)

    assert child.stdout.split() == ["6", "after", "before", "later"], child.stderr
    storage = Storage.open(path)
    try:
        assert storage.repair is None
        assert asyncio.run(_ids(storage)) == {"before", "after", "later"}
    finally:
        storage.close_blocking()


def test_failing_checkpoints_fail_no_write(tmp_path: Path) -> None:
    """What is durable in the log is acknowledged; the checkpoint is tried again later."""
    path = tmp_path / "full.duckdb"

    child = _run(_NO_CHECKPOINT, path)

    assert child.stdout.split() == ["100"], child.stderr
    assert "no checkpoint" in child.stderr
    storage = Storage.open(path)
    try:
        assert storage.repair is None
        assert len(asyncio.run(_ids(storage))) == 100
    finally:
        storage.close_blocking()


def test_commit_that_was_durable_before_its_error_is_acknowledged(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit number tells whether a commit that reported an error had come through."""
    run = transaction._run
    record = samples.evaluation()

    def fail_after_commit(
        connection: duckdb.DuckDBPyConnection, sql: str, params: object = None
    ) -> object:
        rows = run(connection, sql, params)  # type: ignore[arg-type] # passed on as it came
        if sql == "COMMIT":
            monkeypatch.setattr(transaction, "_run", run)
            raise duckdb.FatalException("the disk went away")
        return rows

    monkeypatch.setattr(transaction, "_run", fail_after_commit)

    async def work() -> set[str]:
        await storage.write(record)
        await storage.write(samples.judge())
        return await _ids(storage)

    assert asyncio.run(work()) == {record.evaluation_id}


def test_commit_whose_mark_cannot_be_written_is_not_acknowledged(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later loss of it could not be noticed."""

    def refuse() -> None:
        raise OSError("no space left")

    async def work() -> None:
        monkeypatch.setattr(storage._database, "acknowledge", refuse)
        with pytest.raises(WriteFailedError, match="no space left"):
            await storage.write(samples.evaluation())
        monkeypatch.undo()
        await storage.write(samples.evaluation())

    asyncio.run(work())


def test_reads_wait_while_the_database_is_reopened(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken connection is replaced, and nobody sees the moment in between."""
    record = samples.evaluation()

    async def work() -> list[int]:
        await storage.write(record)
        storage._database.connection.close()  # what a fatal error amounts to
        outcomes = await asyncio.gather(
            *(storage.write(samples.evaluation()) for _ in range(4)),
            return_exceptions=True,
        )
        assert all(isinstance(o, WriteFailedError | None) for o in outcomes)
        counts = await asyncio.gather(
            *(storage.evaluations.existing([record.evaluation_id]) for _ in range(4))
        )
        await storage.write(samples.evaluation())
        return [len(c) for c in counts]

    assert asyncio.run(work()) == [1, 1, 1, 1]
