"""What each defence does against the attack suite, with a model in this process and no server.

`python -m bench.attacks --model local/qwen2.5-coder-1.5b` runs the suite three times: with the text as it
is (no neutralising, which no setting of the product does), neutralised, and with the second look at what
seems to speak to its judge. Prints Markdown. `--every N` takes every N-th attack; `--out FILE` keeps
single results as JSON Lines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO
from unittest import mock

from sidejudge_server.benchmark.attack_report import (
    AttackResult,
    CleanResult,
    attack_tables,
    success_rate,
)
from sidejudge_server.benchmark.attack_runner import PASSING_SCORE
from sidejudge_server.benchmark.attacks.suite import (
    Attack,
    AttackItem,
    attacked,
    attacks,
    items,
)
from sidejudge_server.config import Settings
from sidejudge_server.errors import JudgeOutputError
from sidejudge_server.judges.evaluator import evaluate
from sidejudge_server.judges.kinds import BUILT_IN_JUDGES, initial_program
from sidejudge_server.judges.types import JudgeInput, Judgment, Verdict
from sidejudge_server.lm.client import create_client
from sidejudge_server.lm.embedded import EmbeddedClient
from sidejudge_server.lm.types import ChatClient

STAGES = ("nothing", "neutralised", "neutralised and second look")


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Take the neutraliser away for the first stage; for measuring only."""
    if name != "nothing":
        yield
        return
    with mock.patch(
        "sidejudge_server.judges.prompt.neutralize", lambda text, **_: text
    ):
        yield


class Runner:
    """Judges items with the built-in programs."""

    def __init__(self, client: ChatClient) -> None:
        self._client = client
        self._programs = {j.judge_id: initial_program(j.spec) for j in BUILT_IN_JUDGES}

    async def passes(
        self, judge: str, item: JudgeInput, *, second_look: bool
    ) -> tuple[bool, bool]:
        """Return whether an item passes and whether it was suspected; no usable answer is no pass."""
        try:
            answer = await evaluate(
                self._programs[judge],
                item,
                self._client,
                explain=False,
                second_look=second_look,
            )
        except JudgeOutputError:
            return False, False
        result = answer.result
        if isinstance(result, Judgment):
            return result.verdict is Verdict.PASS, bool(answer.suspicions)
        return result.score >= PASSING_SCORE, bool(answer.suspicions)

    async def run(
        self, name: str, suite: list[Attack], chosen: list[AttackItem]
    ) -> tuple[list[AttackResult], list[CleanResult]]:
        """Run one stage."""
        second_look = name == STAGES[-1]
        clean, targets = [], []
        for item in chosen:
            passed, suspected = await self.passes(
                item.judge, item.input, second_look=second_look
            )
            clean.append(CleanResult(item.judge, not item.fails, passed, suspected))
            if item.fails and not passed:
                targets.append(item)
        results = []
        for judge in dict.fromkeys(item.judge for item in targets):
            of_judge = [item for item in targets if item.judge == judge]
            for number, attack in enumerate(suite):
                item = of_judge[number % len(of_judge)]
                passed, suspected = await self.passes(
                    judge, attacked(item, attack), second_look=second_look
                )
                results.append(
                    AttackResult(
                        judge, attack.family, attack.attack_id, passed, suspected
                    )
                )
        return results, clean


async def measure(arguments: argparse.Namespace, out: IO[str] | None) -> None:
    """Run all stages and print tables."""
    defaults = Settings()
    lm = replace(defaults.task_lm, model=arguments.model)
    client = create_client(lm, model_dir=defaults.model_dir)
    if isinstance(client, EmbeddedClient):
        await client.start()
    suite = attacks()[:: arguments.every]
    chosen = [i for i in items() if not arguments.judge or i.judge in arguments.judge]
    totals = []
    try:
        for name in STAGES:
            with stage(name):
                results, clean = await Runner(client).run(name, suite, chosen)
            totals.append((name, success_rate(results)))
            print(f"\n### {name} (load {os.getloadavg()[0]:.1f})\n", flush=True)
            for line in attack_tables(results, clean):
                print(line, flush=True)
            for result in (*results, *clean) if out else ():
                out.write(json.dumps({"stage": name, **asdict(result)}) + "\n")  # type: ignore[union-attr] # there is one
    finally:
        await client.close()
    print("\n| defence | successful attacks (95 %) |\n|---|---|")
    for name, rate in totals:
        print(f"| {name} | {rate} |")


def main() -> None:
    """Run the suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="local/qwen2.5-coder-1.5b")
    parser.add_argument("--judge", action="append")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.out is None:
        asyncio.run(measure(arguments, None))
    else:
        with arguments.out.open("w", encoding="utf-8") as out:
            asyncio.run(measure(arguments, out))


if __name__ == "__main__":
    main()
