"""Operations timed one after the other, in turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping

__all__ = ["print_medians"]

_WARM_UP = 50


def print_medians(
    timed: Mapping[str, Callable[[int], object]], *, calls: int
) -> dict[str, float]:
    """Run each operation ``calls`` times with the number of the turn; print and return medians in ms.

    The first 50 turns do not count.
    """
    times: dict[str, list[float]] = {}
    for number in range(calls):
        for name, run in timed.items():
            began = time.perf_counter()
            run(number)
            times.setdefault(name, []).append(1000 * (time.perf_counter() - began))
    medians = {
        name: statistics.median(values[_WARM_UP:]) for name, values in times.items()
    }
    print(f"medians of {calls} calls in turns; load {os.getloadavg()[0]:.2f}")
    for name, median in medians.items():
        print(f"{name:<40} {median:7.3f} ms")
    return medians
