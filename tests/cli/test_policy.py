"""`sidejudge policy` against a real sidecar."""

from __future__ import annotations

from tests.cli.commands import Command


def test_policy_is_set_shown_paused_and_resumed(call: Command) -> None:
    """What is not named stays as it is."""
    call("judges", "create", "watched", "--kind", "relevance")
    shown = call("policy", "show", "watched")
    assert "not enabled" in shown.out
    assert "the policy to be enabled" in shown.out
    changed = call(
        *("policy", "set", "watched", "--enabled", "--min-new-examples", "30"),
        *("--cool-down", "1.5", "--max-lm-calls", "900", "--max-minutes", "5"),
        *("--trials", "7", "--deploy-if-better", "--json"),
    ).json
    assert changed["enabled"] is True
    assert changed["min_new_examples"] == 30
    assert changed["min_disagreements"] == 5
    assert changed["cool_down"] == "5400s"
    assert changed["daily_budget"] == {"max_lm_calls": "900", "max_duration": "300s"}
    assert changed["config"]["num_trials"] == 7
    paused = call("policy", "pause", "watched", "--reason", "ann: audit")
    assert "enabled, paused: ann: audit" in paused.out
    assert "900 calls, 5:00 a run" in paused.out
    assert "0 of 30" in paused.out
    resumed = call("policy", "resume", "watched", "--json").json
    assert "paused" not in resumed
    off = call("policy", "set", "watched", "--no-enabled", "--json").json
    assert "enabled" not in off
    assert off["min_new_examples"] == 30


def test_policy_commands_say_what_is_wrong(call: Command) -> None:
    """Nothing to change is a usage error; the server's words for the rest."""
    nothing = call("policy", "set", "faithfulness")
    assert nothing.code == 2
    assert "nothing to change" in nothing.err
    unknown = call("policy", "show", "nobody")
    assert unknown.code == 1
    assert "[JUDGE_NOT_FOUND]" in unknown.err
    wrong = call("policy", "set", "faithfulness", "--min-new-examples", "0")
    assert wrong.code == 1
    assert "min_new_examples" in wrong.err
