"""A language model that judges better or worse by its prompt, as real ones do, from hashes alone.

The logit of the right answer is a sum: how easy the item is, how good the instruction is for the
task, how good the demonstrations are, and noise of the item with each of them. Nothing in a prompt
tells which of its phrases help; only trying does. Every part is a hash of texts, so the same item and
prompt have the same answer in any process, and the worth of a program can be computed without asking.

Asked to write instructions, it goes through a list: the model name ``simulated-WORLD-SESSION-N-K``
begins that of a world at its entry -K and repeats it after N entries, once for each session, so that two
optimizers get the same instructions however they ask for them.

``python -m bench.simulated_judge --latency-ms 20`` serves it as the stand-in, prints the base URL and
ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

from tests.stand_in.answers import Answer
from tests.stand_in.answers import answer as plain_answer
from tests.stand_in.server import StandIn

__all__ = ["TASKS", "SimulatedJudge", "Task", "item_text", "rightness"]


@dataclass(frozen=True, slots=True)
class Task:
    """What moves the logit of the right answer; standard deviations unless said otherwise.

    Attributes:
        scores: True for grades, where the sum moves the error instead.
        base: Mean logit without instruction and demonstrations.
        instruction: Of a phrase of the instruction; it has three.
        demonstration: Of one demonstration.
        noise: Of an item with an instruction, and of an item with a set of demonstrations.
    """

    scores: bool
    base: float
    instruction: float
    demonstration: float
    noise: float


TASKS: Mapping[str, Task] = {
    # One phrase of the instruction matters most, demonstrations hardly.
    "instructions": Task(False, 0.9, 0.35, 0.04, 0.45),
    # It is the demonstrations that matter.
    "demonstrations": Task(False, 0.9, 0.06, 0.22, 0.45),
    # Grades; both matter.
    "scores": Task(True, 0.9, 0.25, 0.12, 0.45),
}

_DIFFICULTY = 1.6
"""Spread of how easy items are: some are nearly always right, some hardly ever."""

_ITEM = re.compile(r"\((\w+) case (\d+): (pass|fail|[\d.]+)\)")
_DSPY_REQUEST = "Respond with the corresponding output fields"
_DSPY_FIELD = re.compile(r"`\[\[ ## (\w+) ## \]\]`")

_OPENINGS = (
    "Read the task first and list what it needs.",
    "Look for what is wrong before anything else.",
    "Compare the artifact with the task step by step.",
    "Weigh what a domain expert would object to.",
    "Judge the substance and ignore the style.",
    "Check every claim against what is given.",
    "Start from the worst part of the artifact.",
    "Ask who would be harmed if this were followed.",
)
_MIDDLES = (
    "Take what is not stated as missing.",
    "Give the benefit of the doubt where the text is unclear.",
    "Small slips do not matter if the result can be used.",
    "One serious fault outweighs many good parts.",
    "Treat unsupported numbers as wrong.",
    "Quote to yourself the words that decide.",
    "Consider the situation that the agent was in.",
    "Do not reward length or confidence.",
)
_ENDS = (
    "Decide only when all parts have been looked at.",
    "When in doubt, decide against the artifact.",
    "When in doubt, decide for the artifact.",
    "Decide as a careful colleague would.",
    "Answer from the text alone, not from what is likely.",
    "Let the purpose of the task decide close cases.",
)
_NORMAL = NormalDist()


@lru_cache(maxsize=1 << 16)
def _normal(*parts: str) -> float:
    """Return a standard normal deviate that belongs to some texts."""
    digest = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).digest()
    return _NORMAL.inv_cdf((int.from_bytes(digest, "big") + 0.5) / 2**64)


class SimulatedJudge:
    """Answers chats; counts the instructions that it has written in each session."""

    def __init__(self) -> None:
        self._written: Counter[str] = Counter()

    def __call__(self, messages: list[dict[str, str]], model: str) -> Answer:
        """Answer a chat: judge the item of the last message, or write what DSPy asks for."""
        last = messages[-1]["content"]
        if _DSPY_REQUEST in last:
            return Answer(self._fields(last, model))
        found = _ITEM.search(last)
        if found is None:
            return plain_answer(messages)
        turns = [m["content"] for m in messages]
        steered = _steering(_task(found), found, turns) + last
        return plain_answer([*messages[:-1], {"role": "user", "content": steered}])

    def _fields(self, prompt: str, model: str) -> str:
        tail = prompt[prompt.rindex(_DSPY_REQUEST) :]
        names = [name for name in _DSPY_FIELD.findall(tail) if name != "completed"]
        text = "Cases of an agent's work, each with a label."
        if "proposed_instruction" in names:
            _, world, _, count, start = model.split("-")
            number = (self._written[model] - int(start)) % int(count)
            text = _instruction(world, number)
            self._written[model] += 1
        sections = [f"[[ ## {name} ## ]]\n{text}" for name in names]
        return "\n\n".join([*sections, "[[ ## completed ## ]]"])


def rightness(messages: Sequence[Mapping[str, str]]) -> float:
    """Return how right the answer to a chat will be, 0..1: P(right label) or 1 - |error|.

    Raises:
        ValueError: The last message has no item.
    """
    turns = [m["content"] for m in messages]
    found = _ITEM.search(turns[-1])
    if found is None:
        raise ValueError("no item in the last message")
    task = _task(found)
    worth = _logistic(_logit(task, found, turns))
    if not task.scores:
        return worth
    return 1 - abs(_grade(worth, found, turns) - float(found[3]))


def item_text(task: str, world: int, number: int, label: str) -> str:
    """Return the text of an item; each world of a task has phrases of other worth.

    Args:
        task: Of `TASKS`.
        world: Any number.
        number: Of the item.
        label: ``pass``, ``fail`` or a score 0..1.
    """
    return f"The agent's work on case {number} ({task}_{world} case {number}: {label})"


def _task(found: re.Match[str]) -> Task:
    return TASKS[found[1].rpartition("_")[0]]


def _steering(task: Task, found: re.Match[str], turns: Sequence[str]) -> str:
    right = _logistic(_logit(task, found, turns))
    if task.scores:
        return f"grade={1 + 4 * _grade(right, found, turns):.3f} "
    passed = right if found[3] == "pass" else 1 - right
    return f"p(yes)={passed:.5f} "


def _logit(task: Task, found: re.Match[str], turns: Sequence[str]) -> float:
    system, *demonstrations = turns[:-1]
    kind, item = found[1], found[2]
    shown = "\n".join(demonstrations)
    phrases = [p for p in (*_OPENINGS, *_MIDDLES, *_ENDS) if p in system]
    written = sum(_normal(kind, "phrase", phrase) for phrase in phrases)
    taught = sum(_normal(kind, "demonstration", text) for text in demonstrations[::2])
    return (
        task.base
        + _DIFFICULTY * _normal(kind, "item", item)
        + task.instruction * written
        + task.demonstration * taught
        + task.noise * _normal(kind, "item and system", item, system)
        + (task.noise * _normal(kind, "item and shown", item, shown) if shown else 0.0)
    )


def _grade(worth: float, found: re.Match[str], turns: Sequence[str]) -> float:
    """Return a score that is off by half the lack of worth, to the side that has room."""
    right = float(found[3])
    error = 0.5 * (1 - worth)
    return right - error if right > 0.5 else right + error


def _logistic(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def _instruction(world: str, number: int) -> str:
    digest = hashlib.sha256(f"{world} {number}".encode()).digest()
    return " ".join(
        pool[digest[i] % len(pool)]
        for i, pool in enumerate((_OPENINGS, _MIDDLES, _ENDS))
    )


async def _serve(latency_s: float) -> None:
    server = StandIn(record=False, latency_s=latency_s, answerer=SimulatedJudge())
    runner = await server.serve()
    print(server.base_url, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


def main() -> None:
    """Serve until the standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    arguments: Any = parser.parse_args()
    asyncio.run(_serve(arguments.latency_ms / 1000))


if __name__ == "__main__":
    main()
