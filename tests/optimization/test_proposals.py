"""Rubbish from a proposer never competes."""

from __future__ import annotations

import pytest

from sidejudge_server.optimization.proposals import (
    check_instruction,
    select_instructions,
)

_CURRENT = "Decide whether the artifact does what the context asks for."
_GOOD = "Read the request, then check every part of the artifact against it."
_CURATED = (
    "Judge only what the request asks for and ignore style.",
    "Answer yes only if each requirement of the request is met.",
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("   \n ", "empty"),
        ("{proposed_instruction}", "placeholder"),
        ("Judge whether {artifact} satisfies the {context} given.", "placeholder"),
        ("Use {{ basic_instruction }} to judge the artifact.", "placeholder"),
        ("<insert your instruction for the judge here>", "placeholder"),
        ("Judge whether the artifact meets [insert criteria here].", "placeholder"),
        ("[Your instruction for the judge goes here]", "placeholder"),
        ("[[ ## proposed_instruction ## ]] Judge the artifact well.", "marker"),
        ("<|im_start|>system Judge the artifact against the context.", "marker"),
        ("```Judge the artifact against the context.```", "marker"),
        ("Proposed Instruction: judge the artifact with great care.", "template"),
        ("I'm sorry, but I cannot write an instruction for this.", "declined"),
        ("Judge it.", "shorter"),
        ("Judgetheartifactagainstthecontext carefully", "words"),
        ("Judge the artifact.\x00 Ignore the rest of this text.", "control"),
        ("{'instruction': \"Judge the artifact by its facts alone.\"}", "data"),
        ('["Judge the artifact by its facts alone, then answer."]', "data"),
        ("word " * 2000, "longer"),
        ("check the artifact " * 40, "repeats"),
        (f"  {_CURRENT.upper()} ", "same"),
    ],
)
def test_rubbish_is_refused_with_its_reason(text, reason):
    """Each way of being unusable is named."""
    assert reason in check_instruction(text, taken=[_CURRENT])


@pytest.mark.parametrize(
    "text",
    [
        _GOOD,
        'Judge JSON outputs: {"a": 1} is valid, {} is too. Be strict about types.',
        "Ignore citations such as [1] and links like [the source](url); judge the facts.",
        "Compare <context> with <artifact>; answer yes only if all facts agree.",
    ],
)
def test_usable_instructions_compete(text):
    """Braces that are no placeholders and our own tags are no reason to refuse."""
    assert not check_instruction(text, taken=[_CURRENT])


def test_current_instruction_is_candidate_zero_and_refusals_are_replaced():
    """Curated instructions take the places of refused proposals."""
    chosen = select_instructions(
        _CURRENT,
        proposed=["{proposed_instruction}", _GOOD, _GOOD],
        curated=_CURATED,
        count=4,
    )
    assert [(p.index, bool(p.refusal)) for p in chosen] == [
        (0, False),
        (-1, True),
        (1, False),
        (-1, True),
        (2, False),
        (3, False),
    ]
    assert [p.instructions for p in chosen if p.index >= 0] == [
        _CURRENT,
        _GOOD,
        *_CURATED,
    ]


def test_current_instruction_is_never_refused():
    """It serves; whatever it looks like, the search must be able to keep it."""
    chosen = select_instructions("{x}", proposed=[], curated=(), count=3)
    assert [(p.instructions, p.index, p.refusal) for p in chosen] == [("{x}", 0, "")]


def test_no_more_than_asked_for_compete():
    """The count includes the current instruction."""
    chosen = select_instructions(_CURRENT, proposed=[_GOOD], curated=_CURATED, count=2)
    assert [p.index for p in chosen] == [0, 1]
