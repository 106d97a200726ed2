"""How much search fits into the demo's time on the machine at hand."""

from __future__ import annotations

from sidejudge.v1 import feedback_pb2

__all__ = ["MAX_TRIALS", "MIN_TRIALS", "examples_that_fit", "trials_that_fit"]

MIN_TRIALS = 2
MAX_TRIALS = 8

# Demonstrations lengthen a prompt; most of it is read from the prompt cache.
_SLOWER_WITH_DEMONSTRATIONS = 1.2

# The least that a gate can say something about; at 40 % of them it has 40 pairs.
_LEAST_EXAMPLES = 100
# Calls that a run with the fewest trials makes for each example, at the split 30/30/40: validation
# for the baseline and for each trial, training once, test twice.
_CALLS_PER_EXAMPLE = 0.3 * (1 + MIN_TRIALS) + 0.3 + 2 * 0.4


def examples_that_fit(
    *, seconds_per_call: float, seconds_left: float, available: int
) -> int:
    """Return how many examples a run with the fewest trials judges in time, 100 or more.

    Args:
        seconds_per_call: Measured on this machine, without reasoning.
        seconds_left: Time for the whole run.
        available: How many there are; never more, even if that is less than 100.
    """
    call_s = max(seconds_per_call, 1e-3) * _SLOWER_WITH_DEMONSTRATIONS
    fitting = int(seconds_left / call_s / _CALLS_PER_EXAMPLE)
    return min(available, max(_LEAST_EXAMPLES, fitting))


def trials_that_fit(
    training_set: feedback_pb2.TrainingSet,
    *,
    seconds_per_call: float,
    seconds_left: float,
) -> int:
    """Return how many trials end in time, 2 to 8.

    A trial judges every validation example. Beside the trials a run judges the validation
    examples once for the baseline, the training examples once for the gap, and the test examples
    twice for the gate.

    Args:
        training_set: Counts of the judge's examples.
        seconds_per_call: Measured on this machine, without reasoning.
        seconds_left: Time for the whole run.
    """
    validation = training_set.validation_count
    fixed = validation + training_set.train_count + 2 * training_set.test_count
    call_s = max(seconds_per_call, 1e-3) * _SLOWER_WITH_DEMONSTRATIONS
    fitting = (seconds_left / call_s - fixed) / max(1, validation)
    return max(MIN_TRIALS, min(MAX_TRIALS, int(fitting)))
