"""Requests on disk before they are made: a killed worker's count too."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from dataclasses import replace

import pytest

from sidejudge_server.lm.attempts import AttemptBound
from sidejudge_server.lm.types import LMUsage
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.executor import LocalExecutor, start_fork_server
from sidejudge_server.optimization.spend_ledger import LedgerSums, SpendLedger
from sidejudge_server.optimization.spending import BudgetExhausted, Spend, SpendMeter
from tests.optimization.runs import execute, make_spec
from tests.stand_in import running_stand_in

_BOUND = AttemptBound(80, 20, 0.01)


def test_a_ledger_tells_the_next_process_what_was_begun(tmp_path):
    """And what of it may have been taken without anybody knowing."""
    ledger = SpendLedger(tmp_path / "run" / "spend.bin")
    assert ledger.before == LedgerSums()
    for _ in range(3):
        ledger.begun(_BOUND)
    ledger.settled(_BOUND)
    ledger.close()
    found = SpendLedger(tmp_path / "run" / "spend.bin").before
    assert (found.attempts, found.unsettled_tokens) == (3, 200)
    assert found.unsettled_usd == pytest.approx(0.02)
    mode = (tmp_path / "run" / "spend.bin").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_a_torn_record_is_cut_off(tmp_path):
    """Those before it count, and the next one is whole."""
    path = tmp_path / "spend.bin"
    ledger = SpendLedger(path)
    ledger.begun(_BOUND)
    with path.open("ab") as file:
        file.write(b"\x01\x02\x03")
    again = SpendLedger(path)
    again.begun(_BOUND)
    assert SpendLedger(path).before.attempts == 2


def test_a_meter_counts_what_was_in_flight_when_its_process_died(tmp_path):
    """The request, and the most that it could have taken."""

    async def dies_with_one_in_flight():
        meter = SpendMeter(ledger=SpendLedger(tmp_path / "spend.bin"))
        used = LMUsage(input_tokens=20, output_tokens=5, calls=1)
        meter.end(await meter.begin(_BOUND), used)
        await meter.begin(_BOUND)

    asyncio.run(dies_with_one_in_flight())
    reported = Spend(lm_calls=1, input_tokens=20, output_tokens=5)
    meter = SpendMeter(
        OptimizationBudget(max_tokens=224),
        spent=reported,
        ledger=SpendLedger(tmp_path / "spend.bin"),
    )
    assert meter.spend.lm_calls == 2
    with pytest.raises(BudgetExhausted):  # 25 taken, 100 unknown, 100 to reserve
        asyncio.run(meter.begin(_BOUND))


def test_what_the_server_knows_counts_if_the_ledger_is_lost(tmp_path):
    """The larger of the two."""
    ledger = SpendLedger(tmp_path / "spend.bin")
    assert SpendMeter(spent=Spend(lm_calls=7), ledger=ledger).spend.lm_calls == 7


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_keeps_to_its_budget(tmp_path):
    """Five lives with SIGKILLs between them make 60 calls together, seen at the stand-in."""
    start_fork_server()
    budget = OptimizationBudget(max_lm_calls=60)

    async def one_life(spec, lm, calls):
        executor = LocalExecutor()
        await executor.submit("run", spec.to_json())
        process = executor.status("run").pid
        async for event in executor.events("run"):
            if event["kind"] in {"progress", "phase_changed"}:
                await asyncio.to_thread(lm.wait_for_calls, calls, timeout_s=20)
                os.kill(process, signal.SIGKILL)

    with running_stand_in(latency_s=0.005) as lm:
        spec = replace(
            make_spec(lm.base_url, tmp_path, num_threads=8, num_trials=30),
            budget=budget,
        )
        for life in range(1, 5):
            asyncio.run(one_life(spec, lm, calls=life * 6))
        seen = lm.call_count
        last = execute(spec)[-1]
        assert 24 <= seen < 60
        assert lm.call_count <= 60
        assert last["progress"]["lm_calls"] == 60
        assert last["stop_reason"] == "max_lm_calls"
