"""While a run measures, no item is answered by its own correction."""

from dataclasses import replace

from sidejudge_server.judges.codec import input_to_json
from sidejudge_server.judges.kinds import JudgeSpec, initial_program
from sidejudge_server.judges.types import (
    ArtifactInput,
    JudgeKind,
    Memory,
    MemoryExample,
    Verdict,
)
from sidejudge_server.optimization.leave_out import LeaveOut
from sidejudge_server.optimization.spec import RunExample

SAFETY = initial_program(JudgeSpec(JudgeKind.SAFETY))


def example(name, text, group=""):
    return RunExample(
        name, input_to_json(ArtifactInput(text)), verdict="pass", group=group
    )


def remembering(**texts):
    examples = tuple(
        MemoryExample(name, ArtifactInput(text), Verdict.PASS)
        for name, text in texts.items()
    )
    return replace(SAFETY, memory=Memory(examples=examples, shown=1))


def test_item_and_its_group_are_hidden():
    """Members of a group are one thing seen twice."""
    leave_out = LeaveOut(
        [example("a", "one", "g"), example("b", "two", "g"), example("c", "three")]
    )
    program = remembering(a="one", b="two", c="three")

    assert leave_out(program, ArtifactInput("one")) >= {"a", "b"}
    assert "c" not in leave_out(program, ArtifactInput("one"))
    assert leave_out(program, ArtifactInput("three")) == {"c"}


def test_copy_in_an_older_memory_is_hidden_by_its_content():
    """A version may remember an example that is no longer in the training set."""
    program = remembering(old="one   ", other="two")

    assert LeaveOut([])(program, ArtifactInput("one")) == {"old"}
    assert LeaveOut([])(program, ArtifactInput("new")) == frozenset()


def test_program_without_memory_hides_nothing():
    """There is nothing to come up."""
    assert LeaveOut([example("a", "one")])(SAFETY, ArtifactInput("one")) == frozenset()
