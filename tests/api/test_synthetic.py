"""SynthesizeTrainingExamples over real gRPC, and that nothing but demonstrations sees the result."""

import pytest

from sidejudge.v1 import (
    evaluation_pb2,
    feedback_pb2,
    feedback_service_pb2,
    judge_pb2,
    optimization_pb2,
    optimization_service_pb2,
)
from sidejudge_server.optimization.executor import start_fork_server
from tests.stand_in import running_stand_in
from tests.support.calls import failure, new_uuid
from tests.support.server import running_server, settings_for
from tests.support.training import create_judge, import_examples

pytestmark = pytest.mark.slow

Example = feedback_pb2.TrainingExample


@pytest.fixture(scope="module", autouse=True)
def fork_server():
    """Workers are forked from a process without threads, as in `sidejudge serve`."""
    start_fork_server()


def synthesize(client, judge, **fields):
    request = feedback_service_pb2.SynthesizeTrainingExamplesRequest(
        judge=judge, **fields
    )
    return client.feedback.SynthesizeTrainingExamples(request, timeout=30)


def refused(client, **fields):
    return failure(
        client.feedback.SynthesizeTrainingExamples,
        feedback_service_pb2.SynthesizeTrainingExamplesRequest(**fields),
    )


def examples(client, judge, *, rejected=False):
    request = feedback_service_pb2.ListTrainingExamplesRequest(
        judge=judge, show_rejected=rejected, page_size=1000
    )
    return client.feedback.ListTrainingExamples(request).training_examples


def training_set(client, judge):
    request = feedback_service_pb2.GetTrainingSetRequest(judge=judge)
    return client.feedback.GetTrainingSet(request).training_set


def synthetic(found):
    return [e for e in found if e.origin == Example.ORIGIN_SYNTHETIC]


@pytest.fixture(scope="module")
def written(server):
    """A judge with 100 real examples, the training set before, and what was written."""
    judge = create_judge(server.client, "synthetic")
    import_examples(server.client, judge, 100)
    before = training_set(server.client, judge)
    return judge, before, synthesize(server.client, judge, max_count=8)


def test_variations_and_counter_examples_are_written_marked_and_on_the_train_side(
    server, written
):
    """In the group of their source, with a label and a reason, and with what they took."""
    judge, _, made = written
    assert (made.created_count, made.lm_calls, made.unreadable_count) == (8, 4, 0)
    assert not made.stopped_by
    found = examples(server.client, judge)
    real = {e.group: e for e in found if e.origin != Example.ORIGIN_SYNTHETIC}
    new = synthetic(found)
    assert sorted(e.name for e in new) == sorted(made.names)
    assert {e.split for e in new} == {Example.SPLIT_TRAIN}
    assert {e.verdict for e in new} == {judge_pb2.VERDICT_PASS, judge_pb2.VERDICT_FAIL}
    for example in new:
        source = real[example.group]
        assert source.split == Example.SPLIT_TRAIN
        assert example.artifact_input.artifact != source.artifact_input.artifact
        assert example.artifact_input.context == source.artifact_input.context
        assert example.rationale
        assert not example.evaluation
        assert not example.feedback
        assert example.source == feedback_pb2.Feedback.SOURCE_UNSPECIFIED


def test_they_count_for_nothing_but_themselves(server, written):
    """Counts, balance and readiness are those of the real examples; the digest knows them."""
    judge, before, made = written
    after = training_set(server.client, judge)
    assert made.training_set == after
    assert (before.synthetic_count, after.synthetic_count) == (0, 8)
    assert after.digest != before.digest
    after.synthetic_count, after.digest = 0, before.digest
    assert after == before


def test_they_are_exported_with_their_mark_and_not_imported_back(server, written):
    """What nobody labelled cannot become somebody's label on the way through a file."""
    judge, _, made = written
    parts = server.client.feedback.ExportTrainingExamples(
        feedback_service_pb2.ExportTrainingExamplesRequest(judge=judge)
    )
    exported = [e for part in parts for e in part.training_examples]
    assert len(synthetic(exported)) == made.created_count
    message = feedback_service_pb2.ImportTrainingExamplesRequest(
        judge=judge, training_examples=synthetic(exported)[:1]
    )
    error = failure(server.client.feedback.ImportTrainingExamples, iter([message]))
    assert [v.field for v in error.violations] == ["training_examples[0].origin"]


def test_there_are_at_most_half_as_many_as_real_ones(server):
    """The rest of the room is used, then the request is refused with figures."""
    judge = create_judge(server.client, "bounded")
    import_examples(server.client, judge, 40)
    real = training_set(server.client, judge).train_count
    made = synthesize(server.client, judge, max_count=100)
    assert made.created_count == real // 2
    assert f"there was room for {real // 2}" in made.stopped_by
    error = refused(server.client, judge=judge)
    assert (error.code.name, error.reason) == (
        "FAILED_PRECONDITION",
        "SYNTHETIC_LIMIT_REACHED",
    )
    assert error.metadata == {"have": str(real // 2), "limit": str(real // 2)}


def test_a_judge_without_training_examples_gets_none(server, stand_in):
    """There is nothing to start from, and the model is not asked."""
    judge = create_judge(server.client, "empty")
    before = stand_in.call_count
    assert refused(server.client, judge=judge).reason == "SYNTHETIC_LIMIT_REACHED"
    assert stand_in.call_count == before


def test_calls_are_bounded_and_seen_at_the_model(server, stand_in):
    """max_lm_calls is what the model sees at most."""
    judge = create_judge(server.client, "frugal")
    import_examples(server.client, judge, 100)
    before = stand_in.call_count
    made = synthesize(server.client, judge, max_count=14, max_lm_calls=3)
    assert stand_in.call_count - before == made.lm_calls == 3
    assert made.created_count == 6
    assert made.stopped_by


def test_a_repeat_returns_the_first_answer(server, stand_in):
    """The same request_id costs nothing again; for another request it is refused."""
    judge = create_judge(server.client, "repeated")
    import_examples(server.client, judge, 60)
    identity = new_uuid()
    first = synthesize(server.client, judge, max_count=4, request_id=identity)
    calls = stand_in.call_count
    assert synthesize(server.client, judge, max_count=4, request_id=identity) == first
    assert stand_in.call_count == calls
    error = refused(server.client, judge=judge, max_count=5, request_id=identity)
    assert error.reason == "REQUEST_ID_REUSED"


def test_answers_that_cannot_be_read_are_counted(server):
    """A model that does not keep to the form makes no examples, and nothing is guessed."""
    judge = create_judge(server.client, "unreadable")
    import_texts(server.client, judge, [f"unreadable item {i}" for i in range(40)])
    made = synthesize(server.client, judge, max_count=4)
    assert (made.created_count, made.lm_calls, made.unreadable_count) == (0, 4, 8)
    assert "there were calls for" in made.stopped_by


def import_texts(client, judge, texts):
    message = feedback_service_pb2.ImportTrainingExamplesRequest(
        judge=judge,
        training_examples=[
            Example(
                artifact_input=evaluation_pb2.ArtifactInput(artifact=text),
                verdict=judge_pb2.VERDICT_PASS if index % 2 else judge_pb2.VERDICT_FAIL,
            )
            for index, text in enumerate(texts)
        ],
    )
    client.feedback.ImportTrainingExamples(iter([message]))


def test_a_real_example_takes_the_place_of_a_synthetic_one(server):
    """Whatever its label: nobody's label neither conflicts nor counts as there already."""
    client = server.client
    judge = create_judge(client, "replaced")
    import_examples(client, judge, 40)
    synthesize(client, judge, max_count=2)
    fake = synthetic(examples(client, judge))[0]
    message = feedback_service_pb2.ImportTrainingExamplesRequest(
        judge=judge,
        training_examples=[
            Example(
                artifact_input=fake.artifact_input,
                verdict=judge_pb2.VERDICT_PASS
                if fake.verdict == judge_pb2.VERDICT_FAIL
                else judge_pb2.VERDICT_FAIL,
                group="real",
            )
        ],
    )
    imported = client.feedback.ImportTrainingExamples(iter([message]))
    assert (imported.imported_count, imported.rejected_count) == (1, 0)
    after = {e.name: e for e in examples(client, judge, rejected=True)}
    assert after[fake.name].rejection == Example.REJECTION_SUPERSEDED
    assert "replaced by a real example" in after[fake.name].rejection_detail
    assert training_set(client, judge).synthetic_count == 1


@pytest.mark.parametrize(
    ("fields", "violations"),
    [
        ({"judge": "nobody"}, ["judge"]),
        ({"judge": "judges/safety", "max_count": 101}, ["max_count"]),
        (
            {"judge": "judges/safety", "max_count": -1, "max_lm_calls": 201},
            ["max_count", "max_lm_calls"],
        ),
        ({"judge": "judges/safety", "request_id": "x"}, ["request_id"]),
    ],
)
def test_bad_requests_name_all_that_is_wrong(server, fields, violations):
    """Before anything is asked or written."""
    error = refused(server.client, **fields)
    assert error.reason == "INVALID_REQUEST"
    assert [v.field for v in error.violations] == violations
    assert refused(server.client, judge="judges/nobody").reason == "JUDGE_NOT_FOUND"


@pytest.mark.parametrize(
    ("model", "reason"),
    [("down", "LM_UNAVAILABLE"), ("bad-key", "LM_CREDENTIALS_REJECTED")],
)
def test_a_model_that_does_not_deliver_is_an_error(stand_in, tmp_path, model, reason):
    """With its own reason, and nothing is written."""
    settings = settings_for(tmp_path, lm_base_url=stand_in.base_url, model=model)
    with running_server(settings) as other:
        judge = create_judge(other.client, "unlucky")
        import_examples(other.client, judge, 40)
        assert refused(other.client, judge=judge).reason == reason
        assert not synthetic(examples(other.client, judge, rejected=True))


def test_what_was_made_before_an_outage_is_kept(tmp_path):
    """The answer says why there is no more."""
    with running_stand_in() as stand_in:
        settings = settings_for(tmp_path, lm_base_url=stand_in.base_url)
        with running_server(settings) as other:
            judge = create_judge(other.client, "cut-off")
            import_examples(other.client, judge, 100)
            stand_in.fail_after(4)
            made = synthesize(other.client, judge, max_count=12)
            assert made.created_count == 8
            assert "the model did not deliver" in made.stopped_by
            assert len(synthetic(examples(other.client, judge))) == 8


@pytest.mark.parametrize("use", [True, False])
def test_only_demonstrations_see_them(tmp_path, use):
    """No candidate is scored, and no gate decides, on an example that a model wrote."""
    config = optimization_pb2.OptimizationConfig(
        algorithm=optimization_pb2.OptimizationConfig.ALGORITHM_LABELED_DEMONSTRATIONS,
        num_trials=4,
        max_labeled_demos=12,
        use_synthetic_examples=use,
    )
    with running_stand_in() as stand_in:
        settings = settings_for(tmp_path, lm_base_url=stand_in.base_url)
        with running_server(settings) as other:
            client = other.client
            judge = create_judge(client, "shown")
            import_examples(client, judge, 60)
            synthesize(client, judge, max_count=8)
            texts = {
                e.artifact_input.artifact for e in synthetic(examples(client, judge))
            }
            start = stand_in.call_count
            request = optimization_service_pb2.OptimizeRequest(
                optimization=optimization_pb2.Optimization(judge=judge, config=config)
            )
            *_, last = client.optimization.Optimize(request, timeout=120)
            run = last.event.finished.optimization
    assert run.state == optimization_pb2.Optimization.STATE_SUCCEEDED
    assert run.config.use_synthetic_examples == use
    assert run.dataset.synthetic_count == (8 if use else 0)
    judged, shown = set(), set()
    for body in stand_in.requests[start:]:
        *before, last_turn = [m["content"] for m in body["messages"]]
        judged |= {text for text in texts if text in last_turn}
        shown |= {text for text in texts for turn in before if text in turn}
    assert not judged
    assert bool(shown) == use
