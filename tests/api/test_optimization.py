"""OptimizationService over real gRPC, with real worker processes."""

import json

import pytest

import sidejudge
from sidejudge.v1 import (
    judge_service_pb2,
    optimization_pb2,
)
from sidejudge.v1 import optimization_service_pb2 as pb
from sidejudge_server.optimization.executor import start_fork_server
from tests.stand_in import running_stand_in
from tests.support.calls import evaluate, failure, new_uuid
from tests.support.server import running_server, server_process, settings_for
from tests.support.training import create_judge, import_examples, teachable_judge

pytestmark = pytest.mark.slow

Optimization = optimization_pb2.Optimization
CONFIG = optimization_pb2.OptimizationConfig(
    num_trials=4,
    num_candidates=4,
    max_bootstrapped_demos=0,
    max_labeled_demos=0,
    instruction_source=optimization_pb2.OptimizationConfig.INSTRUCTION_SOURCE_CURATED,
)


@pytest.fixture(scope="module", autouse=True)
def fork_server():
    """Workers are forked from a process without threads, as in `sidejudge serve`."""
    start_fork_server()


@pytest.fixture(scope="module")
def finished(server):
    """Events of a run that was started with Optimize and watched to its end."""
    judge = teachable_judge(server.client, "teachable")
    request = pb.OptimizeRequest(
        optimization=Optimization(judge=judge, config=CONFIG, deploy_if_better=True),
        request_id=new_uuid(),
    )
    answers = server.client.optimization.Optimize(request, timeout=120)
    return request, [answer.event for answer in answers]


def asked(judge, **fields):
    return pb.CreateOptimizationRequest(
        optimization=Optimization(judge=judge, config=CONFIG, **fields)
    )


def watch(client, name, token="", *, timeout=120):
    request = pb.WatchOptimizationRequest(name=name, resume_token=token)
    for answer in client.optimization.WatchOptimization(request, timeout=timeout):
        yield answer.event


def test_a_run_streams_its_events_and_ends_with_its_decision(finished):
    """A snapshot first, then every event in order without gap, then `finished`."""
    _, events = finished
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "snapshot"
    assert kinds[-1] == "finished"
    logged = [e.sequence for e in events if e.WhichOneof("event") != "heartbeat"]
    first = events[0].sequence
    assert logged[1:] == list(range(first + 1, first + len(logged)))
    run = events[-1].finished.optimization
    assert run.state == Optimization.STATE_SUCCEEDED
    assert run.decision.outcome == optimization_pb2.GateDecision.OUTCOME_IMPROVED
    assert run.decision.candidate.value > run.decision.baseline.value + 0.05
    assert run.decision.pair_count == run.dataset.test_count > 0
    assert {check.name for check in run.decision.checks} == {
        "minimum_improvement",
        "significance",
        "better_than_one_answer",
        "train_validation_gap",
    }
    assert run.progress.trials_completed >= CONFIG.num_trials
    assert run.progress.lm_calls > 0
    assert run.task_model == "openai/stand-in"


def test_the_better_version_is_deployed_and_can_be_taken_back(server, finished):
    """deploy_if_better makes the candidate serve; a rollback returns to the one before."""
    run = finished[1][-1].finished.optimization
    assert run.decision.deployed
    judges = server.client.judges
    judge = judges.GetJudge(judge_service_pb2.GetJudgeRequest(name=run.judge)).judge
    assert judge.deployed_version == run.candidate_version != run.baseline_version
    version = judges.GetJudgeVersion(
        judge_service_pb2.GetJudgeVersionRequest(name=run.candidate_version)
    ).judge_version
    assert version.optimization == run.name
    assert version.parent == run.baseline_version
    assert version.data_digest == run.dataset.digest
    answer = evaluate(server.client, judge=run.judge)
    assert answer.judge_version == run.candidate_version


def test_a_finished_run_is_readable(server, finished):
    """Get and the lists give what the stream gave."""
    run = finished[1][-1].finished.optimization
    optimization = server.client.optimization
    read = optimization.GetOptimization(pb.GetOptimizationRequest(name=run.name))
    assert read.optimization == run
    listed = optimization.ListOptimizations(
        pb.ListOptimizationsRequest(judge=run.judge, state=Optimization.STATE_SUCCEEDED)
    )
    assert list(listed.optimizations) == [run]
    assert not optimization.ListOptimizations(
        pb.ListOptimizationsRequest(judge=run.judge, state=Optimization.STATE_FAILED)
    ).optimizations


def test_trials_are_those_of_the_stream(server, finished):
    """Paged, in order, trial 0 is the baseline."""
    _, events = finished
    run = events[-1].finished.optimization
    streamed = [
        e.trial_completed.trial
        for e in events
        if e.WhichOneof("event") == "trial_completed"
    ]
    trials, token = [], ""
    while not trials or token:
        page = server.client.optimization.ListTrials(
            pb.ListTrialsRequest(parent=run.name, page_size=2, page_token=token)
        )
        trials += page.trials
        token = page.next_page_token
    assert trials[-len(streamed) :] == streamed
    assert [t.name.rpartition("/")[2] for t in trials] == [
        str(number) for number in range(len(trials))
    ]


def test_a_repeated_optimize_joins_the_first_run(server, finished):
    """The same request_id starts nothing and streams the run there is."""
    request, events = finished
    again = list(server.client.optimization.Optimize(request, timeout=60))
    assert again[0].event.snapshot == events[-1].finished.optimization
    assert again[-1].event.finished == events[-1].finished


def test_a_watch_goes_on_after_any_event(server, finished):
    """With a token exactly the events after it, whichever event it came with."""
    _, events = finished
    name = events[-1].finished.optimization.name
    logged = [
        e for e in events if e.WhichOneof("event") not in {"heartbeat", "snapshot"}
    ]
    for position, event in enumerate(logged):
        rest = list(watch(server.client, name, event.resume_token))
        assert rest == logged[position + 1 :]


def test_foreign_tokens_are_refused(server, finished, tmp_path):
    """Of another run, of another database, or of nobody."""
    _, events = finished
    name, token = events[-1].finished.optimization.name, events[0].resume_token
    other = name[:-1] + ("0" if name[-1] != "0" else "1")
    for wrong in (token[:-2], token + "A", "%%%", events[0].resume_token.upper()):
        request = pb.WatchOptimizationRequest(name=name, resume_token=wrong)
        error = failure(server.client.optimization.WatchOptimization, request)
        assert error.reason == "INVALID_RESUME_TOKEN"
    assert (
        failure(
            server.client.optimization.WatchOptimization,
            pb.WatchOptimizationRequest(name=other, resume_token=token),
        ).reason
        == "OPTIMIZATION_NOT_FOUND"
    )
    with running_server(settings_for(tmp_path)) as elsewhere:
        judge = teachable_judge(elsewhere.client, "teachable", examples=40)
        run = elsewhere.client.optimization.CreateOptimization(asked(judge))
        error = failure(
            elsewhere.client.optimization.WatchOptimization,
            pb.WatchOptimizationRequest(name=run.optimization.name, resume_token=token),
        )
        assert (error.code.name, error.reason) == (
            "INVALID_ARGUMENT",
            "INVALID_RESUME_TOKEN",
        )


def test_too_little_data_is_refused_with_numbers(server):
    """How many there are and how many are needed."""
    judge = create_judge(server.client, "empty")
    import_examples(server.client, judge, 7)
    error = failure(server.client.optimization.CreateOptimization, asked(judge))
    assert (error.code.name, error.reason) == (
        "FAILED_PRECONDITION",
        "TRAINING_SET_TOO_SMALL",
    )
    assert error.metadata == {"have": "7", "need": "20"}
    listed = server.client.optimization.ListOptimizations(
        pb.ListOptimizationsRequest(judge=judge)
    )
    assert not listed.optimizations


def test_data_that_cannot_teach_is_refused_with_the_problem(server):
    """One label only: there is nothing to tell apart."""
    judge = create_judge(server.client, "one-label")
    import_examples(server.client, judge, 40, one_label=True)
    error = failure(
        server.client.optimization.Optimize,
        pb.OptimizeRequest(optimization=Optimization(judge=judge)),
    )
    assert error.reason == "TRAINING_SET_NOT_READY"
    assert "fail" in error.metadata["problems"]


def test_all_that_is_wrong_with_a_configuration_is_told_at_once(server):
    """Ranges, presets beside numbers, unknown values, and the names."""
    config = optimization_pb2.OptimizationConfig(
        num_trials=501,
        num_candidates=1,
        max_bootstrapped_demos=17,
        max_labeled_demos=-1,
        seed=-1,
        auto=9,
        instruction_source=9,
        algorithm=9,
    )
    request = pb.CreateOptimizationRequest(
        optimization=Optimization(judge="x", config=config), request_id="x"
    )
    error = failure(server.client.optimization.CreateOptimization, request)
    assert {v.field for v in error.violations} == {
        "optimization.judge",
        "optimization.config.num_trials",
        "optimization.config.num_candidates",
        "optimization.config.max_bootstrapped_demos",
        "optimization.config.max_labeled_demos",
        "optimization.config.seed",
        "optimization.config.auto",
        "optimization.config.instruction_source",
        "optimization.config.algorithm",
        "request_id",
    }


def test_algorithm_is_asked_for_by_name_and_shown_on_run_and_trials(server):
    """A run says what it did, also in its configuration; a preset of early stopping comes back."""
    judge = teachable_judge(server.client, "calibrated")
    config = optimization_pb2.OptimizationConfig(
        algorithm=optimization_pb2.OptimizationConfig.ALGORITHM_LABELED_DEMONSTRATIONS,
        num_trials=2,
        early_stopping=False,
    )
    run = server.client.optimization.CreateOptimization(
        pb.CreateOptimizationRequest(
            optimization=Optimization(judge=judge, config=config)
        )
    ).optimization
    assert run.config.algorithm == config.algorithm
    assert run.config.num_trials == 2
    assert run.config.HasField("early_stopping")
    assert not run.config.early_stopping
    *_, last = watch(server.client, run.name)
    assert last.finished.optimization.state == Optimization.STATE_SUCCEEDED
    listed = server.client.optimization.ListTrials(
        pb.ListTrialsRequest(parent=run.name)
    ).trials
    unspecified = optimization_pb2.OptimizationConfig.ALGORITHM_UNSPECIFIED
    assert [t.algorithm for t in listed] == [unspecified, *[config.algorithm] * 2]


def test_mipro_is_what_runs_when_no_algorithm_is_asked_for(finished):
    """The default is filled in."""
    run = finished[1][-1].finished.optimization
    assert run.config.algorithm == optimization_pb2.OptimizationConfig.ALGORITHM_MIPROV2
    assert run.config.early_stopping


@pytest.fixture
def waiting(tmp_path):
    """A run that waits for its model until the stand-in lets it go."""
    with running_stand_in() as stand_in:
        settings = settings_for(
            tmp_path,
            lm_base_url=stand_in.base_url,
            model="slow",
            optimization={"heartbeat_s": 0.05},
        )
        with running_server(settings) as server:
            judge = teachable_judge(server.client, "waiting", examples=40)
            run = server.client.optimization.CreateOptimization(asked(judge))
            stand_in.wait_for_calls(1, timeout_s=60)
            yield server.client, stand_in, run.optimization


def test_one_run_a_judge(waiting):
    """A second one is told which run is in the way, and the judge cannot be deleted."""
    client, _, run = waiting
    error = failure(client.optimization.CreateOptimization, asked(run.judge))
    assert (error.code.name, error.reason) == ("ABORTED", "OPTIMIZATION_IN_PROGRESS")
    assert error.metadata == {"optimization": run.name}
    error = failure(
        client.judges.DeleteJudge, judge_service_pb2.DeleteJudgeRequest(name=run.judge)
    )
    assert error.reason == "OPTIMIZATION_IN_PROGRESS"


def test_an_idle_run_is_heard_of(waiting):
    """Heartbeats repeat the position of the last event and say how far the run is."""
    client, _, run = waiting
    events = watch(client, run.name)
    last = next(events)
    for event in events:
        if event.WhichOneof("event") == "heartbeat":
            assert event.sequence == last.sequence
            assert event.heartbeat.HasField("progress")
            break
        last = event


def test_a_caller_that_goes_away_cancels_nothing(waiting):
    """The run goes on; a later watch hears everything that was missed."""
    client, stand_in, run = waiting
    events = watch(client, run.name)
    token = next(events).resume_token
    events.close()
    stand_in.release()
    rest = list(watch(client, run.name, token))
    assert rest[-1].finished.optimization.state == Optimization.STATE_SUCCEEDED


def test_a_cancelled_run_ends(waiting):
    """CANCELLED without a decision; cancelling again changes nothing."""
    client, _, run = waiting
    cancel = pb.CancelOptimizationRequest(name=run.name)
    now = client.optimization.CancelOptimization(cancel).optimization
    assert now.state in {Optimization.STATE_CANCELLING, Optimization.STATE_CANCELLED}
    ended = list(watch(client, run.name))[-1].finished.optimization
    assert ended.state == Optimization.STATE_CANCELLED
    assert not ended.HasField("decision")
    again = client.optimization.CancelOptimization(cancel).optimization
    assert again == ended


def test_every_event_arrives_once_however_often_the_stream_breaks(waiting):
    """A watcher that reconnects after each event sees the log without gap or repeat."""
    client, stand_in, run = waiting
    stand_in.release()
    seen, token = [], ""
    while not seen or seen[-1].WhichOneof("event") != "finished":
        events = watch(client, run.name, token)
        event = next(events)
        events.close()
        token = event.resume_token
        if event.WhichOneof("event") not in {"snapshot", "heartbeat"}:
            seen.append(event)
    sequences = [event.sequence for event in seen]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))


def test_a_run_whose_model_fails_says_why(tmp_path):
    """The run's error has code, reason and details of the failed call."""
    with (
        running_stand_in() as stand_in,
        running_server(
            settings_for(tmp_path, lm_base_url=stand_in.base_url, model="bad-key")
        ) as server,
    ):
        judge = teachable_judge(server.client, "failing", examples=40)
        run = server.client.optimization.CreateOptimization(asked(judge)).optimization
        ended = list(watch(server.client, run.name))[-1].finished.optimization
        assert ended.state == Optimization.STATE_FAILED
        assert ended.error.code == 9
        assert b"LM_CREDENTIALS_REJECTED" in ended.error.SerializeToString()
        assert not ended.candidate_version


def test_a_watch_goes_on_after_the_server_was_killed(tmp_path):
    """Log and run survive a SIGKILL: seen without gap or repeat, and nothing is asked twice."""
    with running_stand_in() as stand_in:
        environment = {"SIDEJUDGE_LM": "openai/slow"}
        with (
            server_process(
                tmp_path, lm_base_url=stand_in.base_url, environment=environment
            ) as first,
            sidejudge.connect(first.address) as client,
        ):
            judge = teachable_judge(client, "killed", examples=40)
            run = client.optimization.CreateOptimization(asked(judge)).optimization
            events = watch(client, run.name)
            snapshot = next(events)
            seen = [snapshot]
            stand_in.wait_for_calls(1, timeout_s=60)
            while seen[-1].phase_changed.phase != Optimization.PHASE_BASELINE:
                seen.append(next(events))
            first.kill()
        # Asked before the kill, answered after it: the worker waits for that.
        stand_in.release()
        with (
            server_process(
                tmp_path, lm_base_url=stand_in.base_url, environment=environment
            ) as second,
            sidejudge.connect(second.address) as client,
        ):
            rest = list(watch(client, run.name, seen[-1].resume_token))
    # A heartbeat, which a slow machine brings, repeats the number of the event before it.
    log = [event for event in seen[1:] + rest if not event.HasField("heartbeat")]
    sequences = [event.sequence for event in log]
    start = snapshot.sequence + 1
    assert sequences == list(range(start, start + len(sequences)))
    kinds = [event.WhichOneof("event") for event in rest]
    assert kinds[0] == "resumed"
    assert rest[0].resumed.resume_count == 1
    ended = rest[-1].finished.optimization
    assert ended.state == Optimization.STATE_SUCCEEDED
    assert ended.resume_count == 1
    bodies = [json.dumps(body) for body in stand_in.requests]
    assert len(set(bodies)) == len(bodies) == ended.progress.lm_calls
