"""An evaluation fits its judge, is stored before it is answered, and happens once per request."""

import asyncio
import json
from dataclasses import replace

import pytest

from sidejudge_server.config import ServerSettings, Settings
from sidejudge_server.errors import (
    InvalidRequestError,
    LMUnavailableError,
    NotFoundError,
    OverloadedError,
)
from sidejudge_server.judges.codec import input_from_json
from sidejudge_server.judges.kinds import JudgeSpec
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import RequestLog
from sidejudge_server.judges.service import EvaluateCommand, EvaluationService
from sidejudge_server.judges.types import (
    ArtifactInput,
    Criterion,
    JudgeKind,
    RubricInput,
)
from sidejudge_storage import EvaluationFilter, EvaluationKey, Storage
from tests.judges.scripted import ScriptedClient, says

REQUEST = "22222222-2222-4222-8222-222222222222"
ITEM = ArtifactInput("x", ground_truth="t", context="c")
YES = says("yes\nFine.", yes=0.9, no=0.1)
SAFETY = EvaluateCommand("safety", ITEM)


@pytest.fixture
def run(tmp_path):
    """Run a scenario against a real database; each run is a new start of the service."""

    def start(scenario, *answers, client=None, capacity=512):
        client = client or ScriptedClient(*(answers or (YES,)), repeat=not answers)

        async def go():
            storage = Storage.open(tmp_path / "e.duckdb")
            try:
                requests = RequestLog(storage)
                registry = JudgeRegistry(storage, requests)
                await registry.load()
                settings = Settings(
                    server=ServerSettings(max_pending_evaluations=capacity)
                )
                service = EvaluationService(
                    storage, registry, client, settings, requests=requests
                )
                service.registry = registry
                service.client = client
                return await scenario(service)
            finally:
                await storage.close()

        return asyncio.run(go())

    return start


def test_answer_is_stored_as_it_is_given(run):
    """What the caller got can be read again after a restart."""
    command = replace(SAFETY, subject="s", group="g", labels={"k": "v"})

    async def judge(service):
        return await service.evaluate(command)

    record = run(judge)

    async def read(service):
        page = await service.list(EvaluationFilter(judge_id="safety"), limit=10)
        return await service.get(record.evaluation_id), page

    stored, page = run(read)

    assert stored == record
    assert [r.evaluation_id for r in page] == [record.evaluation_id]
    assert (record.judge_id, record.version, record.verdict) == ("safety", 1, "pass")
    assert record.confidence == pytest.approx(0.9)
    assert record.confidence_source == "logprob"
    assert (record.p_pass, record.p_partial) == (pytest.approx(0.9), 0.0)
    assert (record.subject, record.group_key) == ("s", "g")
    assert json.loads(record.labels_json) == {"k": "v"}
    assert input_from_json(record.input_json) == ITEM
    assert (record.model, record.lm_calls, record.lm_latency_ms) == (
        "scripted",
        1,
        250.0,
    )
    assert record.score is None


def test_rubric_takes_the_judges_criteria_when_the_request_has_none(run):
    """Default criteria are stored with the evaluation, so that they can change later."""

    async def judge(service):
        plain = await service.evaluate(EvaluateCommand("rubric", RubricInput("t", "o")))
        own = await service.evaluate(
            EvaluateCommand("rubric", RubricInput("t", "o", (Criterion("mine"),)))
        )
        return plain, own

    plain, own = run(judge, *[says("4\nGood.\n- More.\nmine: 3", _4=1.0)] * 2)

    names = [c.name for c in input_from_json(plain.input_json).criteria]
    assert names == ["correctness", "completeness", "clarity"]
    assert (plain.score, plain.verdict, plain.score_stddev) == (0.75, None, 0.0)
    assert json.loads(plain.suggestions_json) == ["More."]
    assert json.loads(own.criterion_scores_json) == [
        {"criterion": "mine", "score": 0.5}
    ]


@pytest.mark.parametrize(
    ("judge", "item", "expected", "got"),
    [
        ("rubric", ITEM, "rubric_input", "artifact_input"),
        ("safety", RubricInput("t", "o"), "artifact_input", "rubric_input"),
    ],
)
def test_wrong_shape_is_refused(run, judge, item, expected, got):
    """The error says which shape the judge asks for."""

    async def scenario(service):
        with pytest.raises(InvalidRequestError) as caught:
            await service.evaluate(EvaluateCommand(judge, item))
        return caught.value

    error = run(scenario)

    assert error.reason == "INPUT_KIND_MISMATCH"
    assert error.metadata["expected"] == expected
    assert error.metadata["got"] == got
    assert error.metadata["judge"] == f"judges/{judge}"


def test_inputs_that_a_judge_needs_are_asked_for_all_at_once(run):
    """Faithfulness needs a ground truth; a custom judge exactly its fields."""

    async def scenario(service):
        spec = JudgeSpec(JudgeKind.CUSTOM, instructions="i", input_fields=("a", "b"))
        await service.registry.create("own", spec)
        problems = []
        for command in (
            EvaluateCommand("faithfulness", ArtifactInput("x")),
            EvaluateCommand("own", ArtifactInput("x", fields={"a": "1", "z": "2"})),
            EvaluateCommand("safety", ArtifactInput("x", fields={"a": "1"})),
        ):
            with pytest.raises(InvalidRequestError) as caught:
                await service.evaluate(command)
            problems.append([v.field for v in caught.value.violations])
        fitting = ArtifactInput("x", fields={"a": "1", "b": "2"})
        await service.evaluate(EvaluateCommand("own", fitting))
        return problems, len(service.client.requests)

    problems, calls = run(scenario)

    assert problems == [
        ["artifact_input.ground_truth"],
        ["artifact_input.fields[b]", "artifact_input.fields[z]"],
        ["artifact_input.fields[a]"],
    ]
    assert calls == 1


def test_asked_version_answers_instead_of_the_deployed_one(run):
    """Any version can be tried without deploying it."""

    async def scenario(service):
        program = service.registry.get_version("safety").program
        await service.registry.add_version(
            "safety", replace(program, instructions="Two.")
        )
        records = [
            await service.evaluate(replace(SAFETY, version=version))
            for version in (None, 2)
        ]
        with pytest.raises(NotFoundError):
            await service.evaluate(replace(SAFETY, version=3))
        return [r.version for r in records], service.client.requests[1].messages[
            0
        ].content

    versions, system = run(scenario)

    assert versions == [1, 2]
    assert system.startswith("Two.")


def test_unknown_names_are_not_found(run):
    """Judges and evaluations that are not there are said not to be."""

    async def scenario(service):
        with pytest.raises(NotFoundError) as judge:
            await service.evaluate(EvaluateCommand("nobody", ITEM))
        with pytest.raises(NotFoundError) as evaluation:
            await service.get("00000000-0000-7000-8000-000000000000")
        return judge.value.reason, evaluation.value.reason

    assert run(scenario) == ("JUDGE_NOT_FOUND", "EVALUATION_NOT_FOUND")


def test_repeated_request_gets_the_first_answer(run):
    """Also after a restart, and without asking the LM again."""
    command = replace(SAFETY, request_id=REQUEST)

    async def judge(service):
        records = [await service.evaluate(command) for _ in range(2)]
        return records, len(service.client.requests)

    (first, second), calls = run(judge)
    (third, _), later_calls = run(judge)

    assert first == second == third
    assert (calls, later_calls) == (1, 0)


def test_repeated_request_gets_the_first_answer_of_a_deleted_judge_too(run):
    """What was answered stays answered, whatever becomes of the judge."""
    command = EvaluateCommand("mine", ArtifactInput("x"), request_id=REQUEST)

    async def scenario(service):
        spec = JudgeSpec(JudgeKind.CUSTOM, instructions="Judge.")
        await service.registry.create("mine", spec)
        first = await service.evaluate(command)
        await service.registry.delete("mine")
        with pytest.raises(NotFoundError):
            await service.evaluate(replace(command, request_id=""))
        return first, await service.evaluate(command)

    first, second = run(scenario)

    assert first == second


def test_repeats_at_the_same_time_share_one_call(run):
    """Ten impatient callers cost one completion."""
    command = replace(SAFETY, request_id=REQUEST)

    async def scenario(service):
        records = await asyncio.gather(*(service.evaluate(command) for _ in range(10)))
        return {r.evaluation_id for r in records}, len(service.client.requests)

    ids, calls = run(scenario)

    assert (len(ids), calls) == (1, 1)


def test_caller_that_goes_away_does_not_take_the_others_with_it(run):
    """The work of a request goes on for those who wait, and for its retry."""
    command = replace(SAFETY, request_id=REQUEST)

    async def scenario(service):
        service.client.gate = asyncio.Event()
        first = asyncio.create_task(service.evaluate(command))
        await service.client.asked.wait()
        second = asyncio.create_task(service.evaluate(command))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        service.client.gate.set()
        return (await second).verdict, len(service.client.requests)

    assert run(scenario) == ("pass", 1)


@pytest.mark.parametrize("when", ["later", "meanwhile"])
def test_request_id_belongs_to_one_request(run, when):
    """Another item under the same id is a mistake of the caller, not a cached answer."""
    command = replace(SAFETY, request_id=REQUEST)
    other = replace(command, input=replace(ITEM, artifact="other"))

    async def scenario(service):
        first = asyncio.create_task(service.evaluate(command))
        if when == "later":
            await first
        else:
            await service.client.asked.wait()
        with pytest.raises(InvalidRequestError) as caught:
            await service.evaluate(other)
        await first
        return caught.value

    error = run(scenario)

    assert error.reason == "REQUEST_ID_REUSED"
    assert error.metadata["request_id"] == REQUEST


def test_failed_request_can_be_retried_under_its_id(run):
    """Only answers are remembered, not failures."""
    command = replace(SAFETY, request_id=REQUEST)

    async def scenario(service):
        with pytest.raises(LMUnavailableError):
            await service.evaluate(command)
        assert service.in_progress == 0
        return (await service.evaluate(command)).verdict

    down = LMUnavailableError("down", reason="LM_UNAVAILABLE")
    assert run(scenario, down, YES) == "pass"


def test_too_many_at_once_are_refused(run):
    """The caller is told when to come back; those in progress go on."""

    async def scenario(service):
        service.client.gate = asyncio.Event()
        running = [asyncio.create_task(service.evaluate(SAFETY)) for _ in range(2)]
        await service.client.asked.wait()
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError) as caught:
            await service.evaluate(SAFETY)
        service.client.gate.set()
        await asyncio.gather(*running)
        return caught.value, (await service.evaluate(SAFETY)).verdict

    error, verdict = run(scenario, capacity=2)

    assert error.retry_after_s > 0
    assert verdict == "pass"


def test_recent_answers_are_known_without_the_database(run):
    """Feedback that follows its evaluation needs no query."""

    async def scenario(service):
        record = await service.evaluate(SAFETY)
        return (
            record.evaluation_id,
            service.recent(record.evaluation_id),
            service.recent("x"),
        )

    evaluation_id, key, missing = run(scenario)

    assert key == EvaluationKey(evaluation_id, "safety", "pass", None)
    assert missing is None


def test_forgotten_requests_are_found_in_the_database(tmp_path):
    """When memory is full, older requests are looked up instead of repeated."""

    async def scenario():
        storage = Storage.open(tmp_path / "r.duckdb")
        try:
            log = RequestLog(storage, capacity=1)
            made = []

            async def once(request_id):
                async def perform(claim):
                    made.append(request_id)
                    await storage.write(*claim(f"thing of {request_id}"))
                    return f"thing of {request_id}"

                async def recall(resource_id):
                    return resource_id

                return await log.once(
                    request_id,
                    method="M",
                    fingerprint="f",
                    perform=perform,
                    recall=recall,
                )

            answers = [await once(name) for name in ("a", "b", "a", "b")]
            return answers, made
        finally:
            await storage.close()

    answers, made = asyncio.run(scenario())

    assert answers == ["thing of a", "thing of b"] * 2
    assert made == ["a", "b"]
