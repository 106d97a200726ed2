"""The time that a run still needs is estimated from what its trials and calls have taken."""

from sidejudge_server.optimization.reporter import remaining_s


def test_nothing_is_estimated_before_the_first_trial():
    """There is nothing to go by yet."""
    assert (
        remaining_s(30.0, calls=10, trials=0, trials_left=6, gate_calls_left=80) is None
    )


def test_estimate_counts_trials_and_the_gate_to_come():
    """100 s for 2 trials of 50 calls: 4 more trials take 200 s, 80 calls of the gate 160 s."""
    assert (
        remaining_s(100.0, calls=50, trials=2, trials_left=4, gate_calls_left=80)
        == 360.0
    )


def test_estimate_runs_out_with_the_gate():
    """More calls than planned, such as retries, do not make it negative."""
    assert (
        remaining_s(300.0, calls=150, trials=6, trials_left=-1, gate_calls_left=-3)
        == 0.0
    )


def test_answers_from_the_cache_cost_nothing():
    """A search that is replayed whole has made no calls to divide by."""
    assert (
        remaining_s(10.0, calls=0, trials=5, trials_left=0, gate_calls_left=40) == 0.0
    )
