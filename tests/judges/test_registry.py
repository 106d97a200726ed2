"""Judges change only by verbs, one at a time, and every change survives a restart."""

import asyncio
from dataclasses import replace

import pytest

from sidejudge_server.errors import (
    AlreadyExistsError,
    ConflictError,
    FailedPreconditionError,
    InvalidRequestError,
    NotFoundError,
)
from sidejudge_server.judges.kinds import BUILT_IN_JUDGES, JudgeSpec
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.types import (
    ArtifactInput,
    Criterion,
    Demonstration,
    JudgeKind,
    RubricInput,
    Verdict,
)
from sidejudge_storage import Storage

CUSTOM = JudgeSpec(JudgeKind.CUSTOM, instructions="Be kind.", input_fields=("policy",))
WHO = {"author": "ann", "reason": "because"}


def with_registry(path, scenario):
    """Run a scenario on a fresh registry over a real database file."""

    async def run():
        storage = Storage.open(path)
        try:
            registry = JudgeRegistry(storage)
            await registry.load()
            return await scenario(registry)
        finally:
            await storage.close()

    return asyncio.run(run())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "judges.duckdb"


async def add_versions(registry, judge_id, count):
    program = registry.get_version(judge_id).program
    for number in range(2, count + 2):
        await registry.add_version(
            judge_id, replace(program, instructions=f"Version {number}.")
        )


def test_first_start_creates_the_built_in_judges(path):
    """A new database judges at once; a second start creates nothing."""

    async def look(registry):
        return [(j, registry.get_version(j.judge_id)) for j in registry.list()]

    first = with_registry(path, look)
    second = with_registry(path, look)

    assert [j.judge_id for j, _ in first] == sorted(b.judge_id for b in BUILT_IN_JUDGES)
    assert all(j.built_in and j.deployed_version == 1 for j, _ in first)
    assert all(v.origin == "initial" for _, v in first)
    assert first == second


def test_created_judge_survives_a_restart(path):
    """Spec, labels and version 1 are read back as they were."""

    async def create(registry):
        return await registry.create(
            "kind", CUSTOM, display_name="Kind", description="d", labels={"team": "a"}
        )

    async def look(registry):
        return registry.get("kind"), registry.get_version("kind", 1)

    created = with_registry(path, create)
    judge, version = with_registry(path, look)

    assert judge == created
    assert version.program.instructions == "Be kind."
    assert version.program.input_fields == ("policy",)
    assert version.name == "judges/kind/versions/1"


def test_name_is_taken_once_even_by_a_deleted_judge(path):
    """Evaluations of a deleted judge must not be mistaken for those of another."""

    async def scenario(registry):
        await registry.create("kind", CUSTOM)
        await registry.delete("kind")
        with pytest.raises(NotFoundError) as gone:
            registry.get("kind")
        with pytest.raises(AlreadyExistsError) as taken:
            await registry.create("kind", CUSTOM)
        assert registry.get_version("kind", 1).version == 1
        assert registry.find("kind").deleted
        assert "kind" not in [judge.judge_id for judge in registry.list()]
        return gone.value, taken.value

    gone, taken = with_registry(path, scenario)

    assert (gone.reason, gone.metadata) == ("JUDGE_NOT_FOUND", {"judge": "judges/kind"})
    assert taken.reason == "JUDGE_ALREADY_EXISTS"


def test_two_creations_of_one_name_meet(path):
    """Of two at the same time one wins."""

    async def scenario(registry):
        return await asyncio.gather(
            registry.create("kind", CUSTOM),
            registry.create("kind", CUSTOM),
            return_exceptions=True,
        )

    outcomes = with_registry(path, scenario)

    assert [type(o).__name__ for o in outcomes] == ["Judge", "AlreadyExistsError"]


def test_built_in_judge_cannot_be_deleted(path):
    """What ships with sidejudge stays."""

    async def scenario(registry):
        with pytest.raises(FailedPreconditionError) as caught:
            await registry.delete("safety")
        return caught.value.reason

    assert with_registry(path, scenario) == "JUDGE_BUILT_IN"


def test_update_changes_only_what_is_given(path):
    """Display name and criteria change; versions do not."""

    async def scenario(registry):
        before = registry.get("rubric")
        after = await registry.update(
            "rubric",
            display_name="R",
            default_criteria=(Criterion("x"),),
            etag=before.etag,
        )
        return before, after, registry.get("rubric")

    before, after, read = with_registry(path, scenario)

    assert read == after
    assert (after.display_name, after.description) == ("R", before.description)
    assert after.spec.default_criteria == (Criterion("x"),)
    assert after.etag != before.etag
    assert after.revision == before.revision + 1


@pytest.mark.parametrize("verb", ["update", "delete", "deploy", "rollback"])
def test_outdated_etag_is_refused(path, verb):
    """Whoever did not see the last change is told so, and nothing happens."""

    async def scenario(registry):
        await registry.create("kind", CUSTOM)
        old = registry.get("kind")
        now = await registry.update("kind", display_name="changed")
        calls = {
            "update": lambda: registry.update("kind", display_name="x", etag=old.etag),
            "delete": lambda: registry.delete("kind", etag=old.etag),
            "deploy": lambda: registry.deploy("kind", 1, etag=old.etag, **WHO),
            "rollback": lambda: registry.rollback("kind", etag=old.etag, **WHO),
        }
        with pytest.raises(ConflictError) as caught:
            await calls[verb]()
        assert registry.get("kind") == now
        assert caught.value.metadata == {"expected": now.etag, "got": old.etag}
        return caught.value.reason

    assert with_registry(path, scenario) == "ETAG_MISMATCH"


def test_version_does_not_serve_until_it_is_deployed(path):
    """Adding is not deploying."""

    async def scenario(registry):
        await add_versions(registry, "safety", 1)
        added = registry.get("safety").deployed_version
        deployed = await registry.deploy("safety", 2, **WHO)
        return added, deployed, registry.deployments("safety")

    added, deployed, history = with_registry(path, scenario)

    assert (added, deployed.deployed_version) == (1, 2)
    assert [(d.verb, d.version, d.previous_version, d.author) for d in history] == [
        ("create", 1, None, ""),
        ("deploy", 2, 1, "ann"),
    ]


def test_rolling_back_twice_goes_two_deployments_back(path):
    """Rollbacks walk the history of what served, also across a restart, and do not swing."""

    async def deploy(registry):
        await add_versions(registry, "safety", 2)
        await registry.deploy("safety", 2, **WHO)
        await registry.deploy("safety", 3, **WHO)
        await registry.deploy("safety", 3, **WHO)
        return (await registry.rollback("safety", **WHO)).deployed_version

    async def roll_back(registry):
        first = (await registry.rollback("safety", **WHO)).deployed_version
        with pytest.raises(FailedPreconditionError) as caught:
            await registry.rollback("safety", **WHO)
        again = (await registry.deploy("safety", 3, **WHO)).deployed_version
        back = (await registry.rollback("safety", **WHO)).deployed_version
        return first, caught.value.reason, again, back

    assert with_registry(path, deploy) == 2
    assert with_registry(path, roll_back) == (1, "NO_PREVIOUS_VERSION", 3, 1)


def test_unknown_version_is_not_found(path):
    """The error names the version."""

    async def scenario(registry):
        with pytest.raises(NotFoundError) as caught:
            await registry.deploy("safety", 9, **WHO)
        return caught.value

    error = with_registry(path, scenario)

    assert error.reason == "JUDGE_VERSION_NOT_FOUND"
    assert error.metadata == {"judge_version": "judges/safety/versions/9"}


def test_version_numbers_have_no_gaps_under_concurrency(path):
    """Versions added at the same time are all kept, each under its own number."""

    async def scenario(registry):
        program = registry.get_version("safety").program
        added = await asyncio.gather(
            *(
                registry.add_version("safety", replace(program, instructions=f"v{n}"))
                for n in range(5)
            )
        )
        return [v.version for v in added], [
            v.version for v in registry.list_versions("safety")
        ]

    added, listed = with_registry(path, scenario)

    assert sorted(added) == [2, 3, 4, 5, 6]
    assert listed == [6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"instructions": " "}, "judge_version.instructions"),
        ({"binary": False}, "judge_version"),
        (
            {
                "demonstrations": (
                    Demonstration(ArtifactInput("x"), verdict=Verdict.PARTIAL),
                )
            },
            "judge_version.demonstrations[0]",
        ),
        (
            {"demonstrations": (Demonstration(RubricInput("x", "y"), score=0.5),)},
            "judge_version.demonstrations[0]",
        ),
        (
            {"demonstrations": (Demonstration(ArtifactInput("x"), score=0.5),)},
            "judge_version.demonstrations[0]",
        ),
    ],
)
def test_program_that_does_not_fit_is_refused(path, change, field):
    """A version must fit its judge, demonstrations included."""

    async def scenario(registry):
        program = replace(registry.get_version("safety").program, **change)
        with pytest.raises(InvalidRequestError) as caught:
            await registry.add_version("safety", program)
        return [violation.field for violation in caught.value.violations]

    assert with_registry(path, scenario) == [field]


def test_repeated_request_does_nothing_again(path):
    """A repeat, also after a restart, returns what the first one made."""
    request = "11111111-1111-4111-8111-111111111111"

    async def add(registry):
        program = replace(registry.get_version("safety").program, instructions="new")
        first = await registry.add_version("safety", program, request_id=request)
        second = await registry.add_version("safety", program, request_id=request)
        assert len(registry.list_versions("safety")) == 2
        return first == second

    async def repeat(registry):
        program = registry.get_version("safety", 2).program
        again = await registry.add_version("safety", program, request_id=request)
        other = replace(program, instructions="other")
        with pytest.raises(InvalidRequestError) as caught:
            await registry.add_version("safety", other, request_id=request)
        return again.version, len(registry.list_versions("safety")), caught.value.reason

    assert with_registry(path, add)
    assert with_registry(path, repeat) == (2, 2, "REQUEST_ID_REUSED")
