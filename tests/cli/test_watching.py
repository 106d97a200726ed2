"""What people see of a run: the state that events build, and its line."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from sidejudge.v1 import optimization_pb2, optimization_service_pb2
from sidejudge_server.api.convert_optimization import phase_value
from sidejudge_server.cli.watching import PlainView, RunState, phase_word
from sidejudge_server.optimization.spec import Phase

Event = optimization_service_pb2.OptimizationEvent
Progress = optimization_pb2.OptimizationProgress


def progress(**values: object) -> optimization_pb2.OptimizationProgress:
    return Progress(trials_total=10, elapsed=Duration(seconds=75), **values)  # type: ignore[arg-type] # test values


def searching() -> RunState:
    """Return the state after a phase, a trial and an improvement."""
    state = RunState()
    state.apply(
        Event(
            phase_changed={
                "phase": optimization_pb2.Optimization.PHASE_SEARCHING,
                "progress": progress(baseline_score=0.5, lm_calls=20),
            }
        )
    )
    state.apply(
        Event(
            trial_completed={
                "trial": optimization_pb2.Trial(score=0.625),
                "progress": progress(
                    trials_completed=3,
                    baseline_score=0.5,
                    best_score=0.625,
                    lm_calls=50,
                    cached_calls=4,
                    cost_usd=0.0125,
                    eta=Duration(seconds=30),
                ),
            }
        )
    )
    return state


def test_line_shows_phase_trial_scores_calls_spend_and_eta() -> None:
    """Everything that decides whether to wait is in the line."""
    assert searching().line() == (
        "[1:15] searching  trial 3/10  ETA 0:30  score 0.625  best 0.625"
        "  baseline 0.500  50 calls (+4 cached)  $0.0125"
    )


def test_unknown_price_and_eta_are_left_out_not_zero() -> None:
    """A price that is not known is not free."""
    line = RunState().line()
    assert line == "[0:00] queued  trial 0/?  score -  best -  baseline -  0 calls"


def test_a_model_that_does_not_answer_is_named_while_the_run_waits() -> None:
    """Instead of a time at which it should end."""
    state = searching()
    down = progress(eta=Duration(seconds=30), waiting_for="openai/x")
    state.apply(Event(heartbeat={"progress": down}))
    assert state.place() == "[1:15] searching  trial 0/10  waiting for openai/x"
    state.apply(Event(heartbeat={"progress": progress(eta=Duration(seconds=30))}))
    assert state.place().endswith("ETA 0:30")


def test_warnings_improvements_and_refusals_are_told() -> None:
    """These are read as sentences besides the numbers."""
    state = searching()
    assert state.apply(Event(warning={"message": "few examples"})) == [
        "warning: few examples"
    ]
    improved = Event(best_improved={"trial": "optimizations/o/trials/4", "score": 0.7})
    assert state.apply(improved) == ["best so far: trial 4 with 0.700"]
    assert state.best_score == 0.7
    refused = Event(instruction_proposed={"refusal": "too long"})
    assert state.apply(refused) == ["instruction refused: too long"]
    assert state.apply(Event(instruction_proposed={"instructions": "Judge."})) == []


def test_snapshot_and_end_set_the_state_and_unknown_events_change_nothing() -> None:
    """A watch may begin in the middle, and newer servers may send more."""
    state = RunState()
    run = optimization_pb2.Optimization(
        phase=optimization_pb2.Optimization.PHASE_GATING,
        progress=progress(trials_completed=10),
    )
    state.apply(Event(snapshot=run))
    assert (state.phase, state.trials_completed) == ("gating", 10)
    before = state.line()
    assert state.apply(Event(sequence=9)) == []
    assert state.line() == before
    run.state = optimization_pb2.Optimization.STATE_CANCELLED
    run.end_time.FromSeconds(1)
    state.apply(Event(finished={"optimization": run}))
    assert state.phase == "cancelled"


def test_phase_of_a_newer_server_is_working() -> None:
    """Values may be added to enums."""
    assert phase_word(99) == "working"  # type: ignore[arg-type] # not a value yet


def test_plain_view_prints_a_line_an_event_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Logs get lines; proposals that compete are not worth one; stdout stays for results."""
    view = PlainView()
    view.show(Event(heartbeat={"progress": progress(lm_calls=7)}))
    view.show(Event(instruction_proposed={"instructions": "Judge."}))
    view.show(Event(warning={"message": "a\x1b[2J"}))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "[1:15] queued  trial 0/10  score -  best -  baseline -  7 calls",
        "warning: a\ufffd[2J",
    ]


def test_a_run_begins_with_what_it_was_expected_to_take() -> None:
    """The snapshot brings the estimate and, if a policy started the run, its reason."""
    run = optimization_pb2.Optimization(
        estimate=optimization_pb2.OptimizationEstimate(
            lm_calls=120, duration=Duration(seconds=90)
        ),
        trigger=optimization_pb2.OptimizationTrigger(
            source=optimization_pb2.OptimizationTrigger.SOURCE_POLICY,
            reason="52 new examples",
        ),
    )
    assert RunState().apply(Event(snapshot=run)) == [
        "started by the policy: 52 new examples",
        "expected: 120 calls, 1:30",
    ]
    assert RunState().apply(Event(snapshot=optimization_pb2.Optimization())) == []


def test_phases_are_those_of_the_contract() -> None:
    """Every phase of a run has its value and its word, and every value of the contract is sent."""
    values = optimization_pb2.Optimization.Phase.values()[1:]
    assert sorted(phase_value(phase) for phase in Phase) == sorted(values)
    assert {phase_word(value) for value in values} == set(Phase)
