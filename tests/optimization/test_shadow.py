"""A candidate in shadow is judged on later corrections, each counted once, until it is decided."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sidejudge_server.optimization import shadow_judge
from sidejudge_server.optimization.shadow import evidence_of
from sidejudge_server.optimization.shadow_evidence import BAR, Evidence
from tests.optimization.shadow_setup import shadowing
from tests.stand_in import running_stand_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stand_in():
    with running_stand_in() as running:
        yield running


@pytest.fixture
def run(tmp_path, stand_in):
    """Run a scenario; each run is a new start of the server on the same database."""

    def start(scenario, *, model="stand-in"):
        async def go():
            async with shadowing(tmp_path, stand_in.base_url, model=model) as env:
                return await scenario(env)

        return asyncio.run(go())

    return start


def test_corrections_bring_a_candidate_to_serve(run):
    """5 wins at the gate are 10.5; with two more the evidence is 31.9 and it is deployed."""

    async def scenario(env):
        version = await env.enter()
        before = env.latest()
        await env.correct(1)
        middle = env.latest()
        await env.correct(1, text="more")
        judge = env.registry.get("safety")
        return (
            version,
            before,
            middle,
            env.latest(),
            judge,
            env.registry.deployments("safety"),
        )

    version, before, middle, after, judge, history = run(scenario)
    assert (before.state, before.pairs, before.e_value) == (
        "active",
        20,
        pytest.approx(10.5),
    )
    assert (middle.state, middle.wins, middle.e_value) == (
        "active",
        6,
        pytest.approx(127 / 7),
    )
    assert (after.state, after.wins, after.pairs) == ("deployed", 7, 22)
    assert after.e_value == pytest.approx(255 / 8)
    assert judge.deployed_version == version
    assert (history[-1].verb, history[-1].version) == ("gate", version)
    assert "optimizations/run: in shadow the evidence" in history[-1].reason
    assert "31.9 (bar 20): 7 wins and 0 losses in 22 pairs, 2 of them later" in (
        history[-1].reason
    )


def test_a_candidate_that_nobody_asked_to_deploy_is_proven(run):
    """It is left to people; nothing more is judged."""

    async def scenario(env):
        await env.enter(deploy=False)
        await env.correct(3)
        return env.latest(), env.registry.get("safety").deployed_version

    candidate, deployed = run(scenario)
    assert (candidate.state, candidate.wins) == ("proven", 7)
    assert deployed == 1


def test_a_candidate_that_turns_out_worse_is_dropped(run):
    """Evidence against it reaches the same bar: 5 wins against 16 losses."""

    async def scenario(env):
        await env.enter()
        await env.correct(40, candidate="wrong", baseline="right")
        return env.latest(), env.registry.get("safety").deployed_version

    candidate, deployed = run(scenario)
    assert candidate.state == "dropped"
    assert evidence_of(candidate).e_value_against >= BAR
    before = replace(candidate, losses=candidate.losses - 1)
    assert evidence_of(before).e_value_against < BAR
    assert "is worse than version 1" in candidate.reason
    assert deployed == 1


def test_pairs_that_agree_are_no_evidence_but_count_as_pairs(run):
    """Both right or both wrong: the e-value stays."""

    async def scenario(env):
        await env.enter()
        await env.correct(3, baseline="right")
        await env.correct(2, candidate="wrong", text="both wrong")
        return env.latest()

    candidate = run(scenario)
    assert (candidate.wins, candidate.losses, candidate.pairs) == (5, 0, 25)
    assert candidate.e_value == pytest.approx(10.5)


def test_only_corrections_of_the_baseline_by_unseen_groups_count(run):
    """Not of another version, nor of groups that the candidate may have learnt from."""

    async def scenario(env):
        await env.bring("seen", "train")
        await env.bring("chosen by", "validation")
        await env.bring("held out", "test")
        await env.enter(wins=2, pairs=10)
        await env.correct(1, version=3, text="another version")
        await env.correct(1, group="seen", text="a")
        await env.correct(1, group="chosen by", text="b")
        await env.imported(2)
        nothing = env.latest()
        await env.correct(1, group="held out", text="c")
        await env.correct(2, group="new group", text="d")
        return nothing, env.latest()

    nothing, candidate = run(scenario)
    assert (nothing.pairs, nothing.last_example_id) == (10, nothing.start_id)
    assert (candidate.wins, candidate.pairs) == (5, 13)


def test_a_label_that_is_repeated_counts_once(run):
    """The same author edits a comment, says it again, or another author says it too."""

    async def scenario(env):
        await env.enter()
        (about,) = await env.correct(1)
        once = env.latest()
        for comment in ("why", "why indeed", "why indeed"):
            await env.restate(about, comment=comment)
        await env.restate(about, author="bob")
        return once, env.latest(), env.registry.get("safety").deployed_version

    once, candidate, deployed = run(scenario)
    assert (once.wins, once.pairs) == (6, 21)
    assert candidate == once
    assert deployed == 1


def test_inputs_that_were_judged_again_count_once(run):
    """Another evaluation of what was counted, with a label of its own, is the same evidence."""

    async def scenario(env):
        await env.enter()
        await env.correct(1, group="new group")
        await env.correct(1, group="new group")
        return env.latest()

    candidate = run(scenario)
    assert (candidate.wins, candidate.pairs) == (6, 21)


def test_a_label_replaced_before_it_was_judged_still_counts(run, stand_in):
    """The model is down while the author corrects it: what holds in the end is counted, once."""

    async def before(env):
        await env.enter()
        stand_in.fail_after(0)
        calls = stand_in.call_count
        (about,) = await env.correct(1, wait=False)
        await asyncio.to_thread(stand_in.wait_for_calls, calls + 1)
        await env.restate(about, comment="why", wait=False)
        return env.latest()

    async def after(env):
        await env.judge.drain()
        return env.latest()

    down = run(before)
    stand_in.fail_after(None)
    assert (down.pairs, run(after).pairs) == (20, 21)


def test_a_held_out_input_that_is_labelled_again_does_not_count(run):
    """The gate has asked it already; others of its group count."""

    async def scenario(env):
        # A group that is on the test side takes the inputs that are related to it there.
        await env.bring("held out", "test")
        (about,) = await env.correct(1, group="held out")
        await env.enter()
        await env.restate(about, comment="why")
        await env.correct(1, group="held out")
        nothing = env.latest()
        await env.correct(1, group="held out", text="another")
        return nothing, env.latest()

    nothing, candidate = run(scenario)
    assert (nothing.pairs, nothing.last_example_id) == (20, nothing.start_id)
    assert (candidate.wins, candidate.pairs) == (6, 21)


def test_corrections_from_before_the_shadow_do_not_count(run):
    """The run may have learnt from them."""

    async def scenario(env):
        await env.correct(4)
        await env.enter()
        await env.judge.drain()
        return env.latest().pairs

    assert run(scenario) == 20


def test_scores_are_weighed_by_the_betting_mixture(run):
    """The candidate is nearer by 0.3 each time; its sums go on from those of the gate."""

    async def scenario(env):
        await env.enter("rubric", wins=4, pairs=6)
        before = env.latest("rubric")
        await env.correct_scores([0.8, 0.9], baseline=0.5, candidate=0.75)
        return before, env.latest("rubric")

    before, after = run(scenario)
    assert (after.wins, after.pairs) == (6, 8)
    gains = [0.3] * 4 + [0.0] * 2 + [0.3 - 0.05, 0.4 - 0.15]
    assert after.e_value == pytest.approx(Evidence.of(gains, scores=True).e_value)
    assert after.e_value > before.e_value


def test_scores_that_get_better_deploy(run):
    """The same bar as for verdicts."""

    async def scenario(env):
        version = await env.enter("rubric", wins=8, pairs=10)
        await env.correct_scores([0.75] * 12, baseline=0.25, candidate=0.75)
        return version, env.latest("rubric"), env.registry.get("rubric")

    version, candidate, judge = run(scenario)
    assert candidate.state == "deployed"
    assert judge.deployed_version == version


def test_a_restart_counts_nothing_twice_and_forgets_nothing(run, stand_in):
    """The model is down before the restart; what came meanwhile is judged afterwards."""

    async def before(env):
        await env.enter(wins=2, pairs=10)
        await env.correct(2, baseline="right")
        stand_in.fail_after(0)
        calls = stand_in.call_count
        await env.correct(3, baseline="right", text="while it is down", wait=False)
        await asyncio.to_thread(stand_in.wait_for_calls, calls + 1)
        return env.latest()

    async def after(env):
        await env.judge.drain()
        seen = env.latest()
        await env.correct(1, text="afterwards")
        return seen, env.latest(), stand_in.call_count - calls

    down = run(before)
    stand_in.fail_after(None)
    calls = stand_in.call_count
    seen, last, made = run(after)
    assert down.pairs == 12
    assert seen.pairs == 15
    assert (last.pairs, last.wins) == (16, 3)
    assert made == 4


def test_a_model_that_is_down_is_asked_again(run, stand_in, monkeypatch):
    """The correction waits and is counted once the model answers."""
    monkeypatch.setattr(shadow_judge, "_RETRY_S", 0.01)

    async def scenario(env):
        await env.enter()
        stand_in.fail_after(0)
        calls = stand_in.call_count
        await env.correct(1, baseline="right", wait=False)
        await asyncio.to_thread(stand_in.wait_for_calls, calls + 3)
        waiting = env.latest().pairs
        stand_in.fail_after(None)
        await env.judge.drain()
        return waiting, env.latest().pairs

    assert run(scenario) == (20, 21)


def test_an_unusable_answer_of_the_candidate_is_a_wrong_one(run):
    """The baseline had answered; a judge that cannot is no better."""

    async def scenario(env):
        await env.enter()
        await env.correct(1, baseline="right")
        return env.latest()

    candidate = run(scenario, model="garbage")
    assert (candidate.losses, candidate.pairs) == (1, 21)


def test_a_refused_request_is_left_out(run):
    """It says nothing about the candidate, and does not stand in the way of the next."""

    async def scenario(env):
        await env.enter()
        await env.correct(2)
        return env.latest()

    candidate = run(scenario, model="too-long")
    assert (candidate.pairs, candidate.state) == (20, "active")
    assert candidate.last_example_id > candidate.start_id


def test_a_version_deployed_by_hand_ends_the_comparison(run):
    """The candidate was compared with what serves no more, also after a rollback to that."""

    async def scenario(env):
        await env.enter()
        program = env.registry.get_version("safety").program
        other = await env.registry.add_version("safety", program)
        await env.registry.deploy("safety", other.version, author="a", reason="r")
        await env.judge.drain()
        at_once = env.latest()
        await env.registry.rollback("safety", author="a", reason="r")
        await env.correct(3)
        assert env.latest() == at_once
        return at_once

    candidate = run(scenario)
    assert (candidate.state, candidate.pairs) == ("dropped", 20)
    assert candidate.reason == "version 3 was deployed"


def test_the_candidate_deployed_by_hand_is_deployed(run):
    """People may be faster than evidence."""

    async def scenario(env):
        version = await env.enter()
        await env.registry.deploy("safety", version, author="a", reason="r")
        await env.correct(1, version=version)
        return env.latest()

    candidate = run(scenario)
    assert (candidate.state, candidate.reason) == ("deployed", "version 2 was deployed")


def test_a_crash_before_the_end_is_written_is_made_up_for(run):
    """Enough evidence is on disk, the deployment is not: the next start deploys."""

    async def before(env):
        await env.enter(wins=9)
        # As after a crash: nobody has looked at it.
        return env.latest()

    async def stop_at_once(env):
        env.candidates._listeners.clear()
        return await before(env)

    async def after(env):
        await env.judge.drain()
        return env.latest(), env.registry.get("safety").deployed_version

    assert run(stop_at_once).state == "active"
    candidate, deployed = run(after)
    assert (candidate.state, deployed) == ("deployed", 2)


def test_a_newer_candidate_takes_the_place_of_the_one_before(run):
    """One at a time for each judge; the old one says why it ended."""

    async def scenario(env):
        await env.enter(run="first")
        await env.enter(run="second")
        await env.correct(2)
        return await env.storage.shadow_candidates.of("safety")

    first, second = run(scenario)
    assert (first.state, first.reason) == ("dropped", "version 3 took its place")
    assert (second.optimization_id, second.state) == ("second", "deployed")


def test_a_deleted_judge_ends_the_comparison(run):
    """There is nothing to get better at."""

    async def scenario(env):
        judge = await env.registry.create("mine", env.registry.get("safety").spec)
        await env.enter("mine")
        await env.registry.delete(judge.judge_id)
        env.judge.look_at("mine")
        await env.judge.drain()
        return env.latest("mine")

    assert run(scenario).reason == "the judge was deleted"


def test_an_evaluation_interrupts_the_shadow(run, stand_in):
    """Its call is given up when every slot is needed, and made again later."""

    async def scenario(env):
        await env.enter()
        calls, gone = stand_in.call_count, stand_in.disconnects
        await env.correct(1, baseline="right", wait=False)
        await asyncio.to_thread(stand_in.wait_for_calls, calls + 1)
        for _ in range(4):
            env.judge._slack.enter()
        await asyncio.to_thread(stand_in.wait_for_disconnects, gone + 1)
        crowded = env.latest().pairs
        env.judge._slack.leave()
        stand_in.release()
        await env.judge.drain()
        return crowded, env.latest().pairs, stand_in.call_count - calls

    assert run(scenario, model="slow") == (20, 21, 2)


def test_a_judge_with_a_fault_does_not_hold_up_the_others(run, monkeypatch):
    """One whose candidate is not there any more is tried again after the rest."""
    monkeypatch.setattr(shadow_judge, "_RETRY_S", 0.01)

    async def scenario(env):
        served = asyncio.Event()
        env.registry.on_deployed(lambda _: served.set())
        broken = await env.enter("rubric", wins=2, pairs=6)
        env.registry._entries["rubric"].versions.pop(broken)
        await env.enter()
        await env.correct_scores([0.8], baseline=0.5, candidate=0.75, wait=False)
        await env.correct(2, wait=False)
        await served.wait()
        return env.latest("rubric").pairs

    assert run(scenario) == 6
