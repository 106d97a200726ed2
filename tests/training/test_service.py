"""Feedback is checked, recorded once, and shows up in the training set."""

from __future__ import annotations

import asyncio
import math
from uuid import uuid4

import pytest

from sidejudge_server.errors import InvalidRequestError, NotFoundError
from sidejudge_server.judges.types import ArtifactInput, RubricInput
from sidejudge_server.training.corrections import BatchResource, Correction
from sidejudge_server.training.examples import ImportedExample
from sidejudge_storage import EvaluationKey, ExampleFilter, FeedbackFilter
from tests.training.builders import evaluation
from tests.training.service_setup import running

RUBRIC = RubricInput("task", "output")


def run(path, scenario, **given):
    """Run a scenario against a running service."""

    async def main():
        async with running(path, **given) as env:
            return await scenario(env)

    return asyncio.run(main())


async def with_evaluations(env, *abouts):
    await env.storage.write(*abouts)
    return [about.evaluation_id for about in abouts]


def test_a_correction_is_on_disk_and_becomes_an_example(tmp_path):
    """Everything that was said comes back from the database."""

    async def scenario(env):
        (about,) = await with_evaluations(env, evaluation())
        correction = Correction(
            about, verdict="fail", author="ann", source="user", comment="why"
        )
        record = await env.service.record(correction)
        (listed,) = await env.service.list(
            FeedbackFilter(judge_id="relevance"), limit=10
        )
        assert listed == record
        assert (record.verdict, record.judge_id) == ("fail", "relevance")
        (example,) = await env.service.list_examples(
            ExampleFilter(judge_id="relevance"), limit=10
        )
        assert example.feedback_id == record.feedback_id
        assert (example.rationale, example.source) == ("why", "user")

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("about", "label", "field"),
    [
        (evaluation(), {"score": 0.5}, "feedback.score"),
        (evaluation(), {"verdict": "great"}, "feedback.verdict"),
        (evaluation(judge="safety"), {"verdict": "partial"}, "feedback.verdict"),
        (evaluation(RUBRIC, judge="rubric"), {"verdict": "pass"}, "feedback.verdict"),
        (evaluation(RUBRIC, judge="rubric"), {"score": 1.5}, "feedback.score"),
        (evaluation(RUBRIC, judge="rubric"), {"score": math.nan}, "feedback.score"),
        (evaluation(), {}, "feedback.correction"),
        (evaluation(), {"verdict": "pass", "score": 1.0}, "feedback.correction"),
        (evaluation(), {"verdict": "pass", "author": "a" * 129}, "feedback.author"),
        (evaluation(), {"verdict": "pass", "comment": "c" * 4001}, "feedback.comment"),
        (evaluation(), {"verdict": "pass", "source": "dream"}, "feedback.source"),
    ],
)
def test_a_correction_that_does_not_fit_is_refused(tmp_path, about, label, field):
    """The violation names the field; nothing is recorded."""

    async def scenario(env):
        await with_evaluations(env, about)
        with pytest.raises(InvalidRequestError) as raised:
            await env.service.record(Correction(about.evaluation_id, **label))
        assert [v.field for v in raised.value.violations] == [field]
        assert await env.service.list(FeedbackFilter(), limit=10) == []

    run(tmp_path, scenario)


def test_an_unknown_evaluation_is_named(tmp_path):
    """By its resource name."""

    async def scenario(env):
        with pytest.raises(NotFoundError) as raised:
            await env.service.record(Correction("nowhere", verdict="pass"))
        assert raised.value.reason == "EVALUATION_NOT_FOUND"
        assert raised.value.metadata == {"evaluation": "evaluations/nowhere"}

    run(tmp_path, scenario)


def test_recent_evaluations_are_not_looked_up(tmp_path):
    """What the callable knows is taken as it is."""
    about = evaluation()
    key = EvaluationKey(about.evaluation_id, "safety", "pass", None)

    async def scenario(env):
        await env.storage.write(about)
        record = await env.service.record(
            Correction(about.evaluation_id, verdict="fail")
        )
        assert record.judge_id == "safety"

    run(tmp_path, scenario, recent={about.evaluation_id: key}.get)


def test_a_repeated_request_is_answered_as_the_first_time(tmp_path):
    """At once, at the same time and after a restart; another request is refused."""
    request_id, about = str(uuid4()), evaluation()
    correction = Correction(about.evaluation_id, verdict="fail")

    async def first(env):
        await env.storage.write(about)
        answers = await asyncio.gather(
            *(env.service.record(correction, request_id=request_id) for _ in range(4))
        )
        return {answer.feedback_id for answer in answers}

    async def again(env):
        answer = await env.service.record(correction, request_id=request_id)
        other = Correction(about.evaluation_id, verdict="pass")
        with pytest.raises(InvalidRequestError) as raised:
            await env.service.record(other, request_id=request_id)
        assert raised.value.reason == "REQUEST_ID_REUSED"
        assert len(await env.service.list(FeedbackFilter(), limit=10)) == 1
        return {answer.feedback_id}

    assert run(tmp_path, first) == run(tmp_path, again)


def test_a_caller_that_goes_away_leaves_no_feedback_without_example(
    tmp_path, monkeypatch
):
    """The write was sent, so what follows it happens too."""

    async def scenario(env):
        (about,) = await with_evaluations(env, evaluation())
        real, entered, go = env.storage.write, asyncio.Event(), asyncio.Event()

        async def slow_write(*commands):
            entered.set()
            await go.wait()
            await real(*commands)

        with monkeypatch.context() as patch:
            patch.setattr("sidejudge_storage.Storage.write", _bound(slow_write))
            call = asyncio.create_task(
                env.service.record(Correction(about, verdict="fail"))
            )
            await entered.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            go.set()
            async with asyncio.timeout(30):  # not a measurement: ends a hanging test
                while not await env.examples():
                    pass
        assert (await env.service.training_set("relevance")).example_count == 1

    run(tmp_path, scenario)


def _bound(function):
    """Make a method of a function that needs no self."""

    async def method(_, *args):
        return await function(*args)

    return method


def test_a_batch_reports_bad_items_by_index_and_records_the_rest(tmp_path):
    """Ids stand at the place of their item."""

    async def scenario(env):
        ids = await with_evaluations(env, *(evaluation() for _ in range(5)))
        batch = [Correction(e, verdict="fail") for e in ids]
        batch[1] = Correction("nowhere", verdict="fail")
        batch[3] = Correction(ids[3], score=0.5)
        outcome = await env.service.record_batch(batch)
        assert [(e.index, e.error.reason) for e in outcome.errors] == [
            (1, "EVALUATION_NOT_FOUND"),
            (3, "INVALID_REQUEST"),
        ]
        assert [i is None for i in outcome.feedback_ids] == [
            False, True, False, True, False,
        ]  # fmt: skip
        listed = await env.service.list(FeedbackFilter(), limit=10)
        by_id = {record.feedback_id: record.evaluation_id for record in listed}
        assert by_id == {
            outcome.feedback_ids[i]: batch[i].evaluation_id for i in (0, 2, 4)
        }

    run(tmp_path, scenario)


def test_a_repeated_batch_is_answered_as_the_first_time(tmp_path):
    """Ids and errors are the same after a restart, with other feedback before and after."""
    request_id = str(uuid4())
    abouts = [evaluation() for _ in range(30)]
    batch = [Correction(about.evaluation_id, verdict="fail") for about in abouts]
    batch[0] = batch[17] = batch[18] = Correction("nowhere", verdict="fail")

    async def first(env):
        await env.storage.write(*abouts)
        await env.service.record(batch[1])
        outcome = await env.service.record_batch(batch, request_id=request_id)
        await env.service.record(batch[2])
        return outcome

    async def again(env):
        outcome = await env.service.record_batch(batch, request_id=request_id)
        assert len(await env.service.list(FeedbackFilter(), limit=100)) == 29
        return outcome

    before, after = run(tmp_path, first), run(tmp_path, again)
    assert after.feedback_ids == before.feedback_ids
    assert sum(i is not None for i in after.feedback_ids) == 27
    assert [(e.index, e.error.reason) for e in after.errors] == [
        (e.index, e.error.reason) for e in before.errors
    ]


def test_a_batch_of_errors_alone_is_remembered_too(tmp_path):
    """Nothing was recorded, and a repeat says the same."""
    request_id = str(uuid4())

    async def scenario(env):
        batch = [Correction("nowhere", verdict="pass")]
        for _ in range(2):
            outcome = await env.service.record_batch(batch, request_id=request_id)
            assert outcome.feedback_ids == (None,)
            assert len(outcome.errors) == 1

    run(tmp_path, scenario)


@pytest.mark.parametrize("size", [0, 10_001])
def test_batches_have_a_size(tmp_path, size):
    """1 to 10,000."""

    async def scenario(env):
        with pytest.raises(InvalidRequestError, match=str(size)):
            await env.service.record_batch([Correction("e", verdict="pass")] * size)

    run(tmp_path, scenario)


@pytest.mark.parametrize("failed", [(), (0,), (1, 2, 3, 7), (5, 6, 9, 10, 11)])
def test_what_a_batch_is_answered_from_fits_in_a_line(failed):
    """Failed indexes are written as ranges and read back."""
    resource = BatchResource("id", 12, failed)
    assert BatchResource.from_text(resource.to_text()) == resource


def test_the_training_set_reflects_all_acknowledged_feedback(tmp_path):
    """Right after the answer to a batch."""

    async def scenario(env):
        abouts = [evaluation() for _ in range(600)]
        ids = await with_evaluations(env, *abouts)
        batch = [
            Correction(e, verdict="fail" if i % 3 else "pass")
            for i, e in enumerate(ids)
        ]
        await env.service.record_batch(batch)
        got = await env.service.training_set("relevance")
        assert got.example_count == 600
        assert got.label_counts == {"pass": 200, "fail": 400}
        assert got.disagreement_count == 400
        assert got.readiness == "ready"
        shares = [got.train_count / 600, got.validation_count / 600]
        assert shares == pytest.approx([0.3, 0.3], abs=0.01)
        data = await env.service.training_data("relevance")
        assert data.training_set == got
        assert len(data.examples) == 600

    run(tmp_path, scenario)


def test_an_unknown_judge_has_no_training_set(tmp_path):
    """Neither to read nor to import to."""

    async def scenario(env):
        for call in (
            env.service.training_set("nobody"),
            env.service.training_data("nobody"),
            env.service.import_examples("nobody", []),
            env.service.list_examples(ExampleFilter(judge_id="nobody"), limit=1),
        ):
            with pytest.raises(NotFoundError):
                await call

    run(tmp_path, scenario)


def test_an_import_names_what_it_leaves_out(tmp_path):
    """By index; a second import of the same data changes nothing."""
    items = [
        ImportedExample(ArtifactInput("a"), verdict="pass"),
        ImportedExample(ArtifactInput(""), verdict="pass"),
        ImportedExample(ArtifactInput("b"), verdict="fail", group="g"),
        ImportedExample(ArtifactInput("a"), verdict="pass"),
    ]

    async def scenario(env):
        first = await env.service.import_examples("relevance", items)
        assert first.imported_count == 2
        assert [(r.index, r.rejection) for r in first.rejected] == [
            (1, "empty_input"),
            (3, "duplicate"),
        ]
        before = await env.service.training_set("relevance")
        again = await env.service.import_examples("relevance", items)
        assert again.imported_count == 0
        after = await env.service.training_set("relevance")
        assert after.digest == before.digest
        assert after.rejections == {"duplicate": 4, "empty_input": 2}

    run(tmp_path, scenario)


def test_an_import_against_feedback_takes_both_down(tmp_path):
    """Also the example that was stored before."""

    async def scenario(env):
        (about,) = await with_evaluations(env, evaluation(ArtifactInput("a")))
        await env.service.record(Correction(about, verdict="pass"))
        outcome = await env.service.import_examples(
            "relevance", [ImportedExample(ArtifactInput("a"), verdict="fail")]
        )
        assert [r.rejection for r in outcome.rejected] == ["conflicting_label"]
        got = await env.service.training_set("relevance")
        assert got.example_count == 0
        assert got.rejections == {"conflicting_label": 2}

    run(tmp_path, scenario)


def test_one_message_of_an_import_has_a_limit(tmp_path):
    """1,000 examples."""

    async def scenario(env):
        item = ImportedExample(ArtifactInput("a"), verdict="pass")
        with pytest.raises(InvalidRequestError, match="1001"):
            await env.service.import_examples("relevance", [item] * 1001)

    run(tmp_path, scenario)


def test_an_export_goes_on_after_the_last_example_received(tmp_path):
    """Oldest first, no gap and no repetition; rejected ones only when asked for."""
    items = [
        ImportedExample(ArtifactInput(f"{i // 2}"), verdict="pass") for i in range(20)
    ]

    async def scenario(env):
        await env.service.import_examples("relevance", items)

        async def ids(**given):
            pages = env.service.export("relevance", page_size=3, **given)
            return [e.example_id async for page in pages for e in page]

        counting, everything = await ids(), await ids(include_rejected=True)
        assert (len(counting), len(everything)) == (10, 20)
        assert everything == sorted(everything)
        rest = await ids(include_rejected=True, after=everything[6])
        assert rest == everything[7:]
        assert await ids(after=everything[-1]) == []

    run(tmp_path, scenario)
