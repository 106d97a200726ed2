"""Who takes part and which arm a subject has."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sidejudge_server.experiments.splitting import (
    Slice,
    arm_of,
    free_slice,
    takes_part,
    weights_now,
)
from sidejudge_server.experiments.status import Status
from sidejudge_server.experiments.types import Arm, Mode, RolloutPlan, Stage
from tests.experiments.test_analysis import experiment

SUBJECTS = [f"task-{i}" for i in range(2000)]


def running(**changes):
    return experiment(slice_low=0.0, slice_high=1.0, **changes)


def test_a_split_follows_its_weights():
    arms = (Arm("a", weight=0.2), Arm("b", weight=0.5), Arm("c", weight=0.3))
    split = running(mode=Mode.SPLIT, judge_id=None, arms=arms)
    counts = {arm.arm_id: 0 for arm in arms}
    for subject in SUBJECTS:
        counts[arm_of(split, subject).arm_id] += 1
    assert 340 < counts["a"] < 460
    assert 930 < counts["b"] < 1070


def test_a_growing_rollout_moves_subjects_one_way_only():
    plan = RolloutPlan(stages=(Stage(0.05, 1), Stage(0.25, 1), Stage(0.5, 1)))
    before = set()
    for stage in range(4):
        ramp = running(mode=Mode.ROLLOUT, rollout=plan, status=Status(stage=stage))
        now = {s for s in SUBJECTS if arm_of(ramp, s).arm_id == "candidate"}
        assert before <= now
        before = now
    assert before == set(SUBJECTS)
    opened = running(
        mode=Mode.ROLLOUT, rollout=plan, status=Status(stage=2, circuit_open=True)
    )
    assert {arm_of(opened, s).arm_id for s in SUBJECTS[:100]} == {"baseline"}
    assert weights_now(opened)["candidate"] == 0


def test_shadow_answers_with_the_baseline_and_outsiders_have_no_arm():
    shadow = replace(running(), slice_high=0.5)
    inside = [s for s in SUBJECTS if takes_part(shadow, s)]
    assert 900 < len(inside) < 1100
    assert {arm_of(shadow, s).arm_id for s in inside} == {"baseline"}
    assert all(arm_of(shadow, s) is None for s in set(SUBJECTS) - set(inside))


def test_salts_and_experiments_assign_independently():
    one = running(mode=Mode.SPLIT)
    other = replace(one, salt="t")
    same = sum(arm_of(one, s) == arm_of(other, s) for s in SUBJECTS)
    assert 900 < same < 1100


@given(
    st.lists(st.floats(0.01, 0.4), max_size=5),
    st.floats(0.01, 1.0),
)
def test_a_free_slice_overlaps_nobody(shares, need):
    taken = []
    for share in shares:
        part = free_slice(taken, share)
        if part is not None:
            taken.append(part)
    part = free_slice(taken, need)
    if part is None:
        assert sum(t.high - t.low for t in taken) + need > 1 - 1e-6
        return
    assert 0 <= part.low < part.high <= 1
    assert abs(part.high - part.low - need) < 1e-6
    for other in taken:
        assert part.high <= other.low + 1e-9 or part.low >= other.high - 1e-9


def test_a_gap_between_others_is_used():
    taken = [Slice(0.0, 0.3), Slice(0.7, 1.0)]
    assert free_slice(taken, 0.4) == Slice(0.3, 0.7)
    assert free_slice(taken, 0.5) is None
