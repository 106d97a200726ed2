"""The attacks are what they claim to be, and none of them leaves the tags it was put between."""

import re
from collections import Counter

import pytest

from sidejudge_server.benchmark.attack_report import (
    AttackResult,
    CleanResult,
    attack_tables,
    success_rate,
)
from sidejudge_server.benchmark.attacks.suite import (
    attacked,
    attacks,
    items,
    made,
)
from sidejudge_server.judges.kinds import BUILT_IN_JUDGES, initial_program
from sidejudge_server.judges.prompt import build_request
from sidejudge_server.judges.suspicion import suspicions

SUITE, ITEMS = attacks(), items()
PROGRAMS = {j.judge_id: initial_program(j.spec) for j in BUILT_IN_JUDGES}
FAILING = [item for item in ITEMS if item.fails]


def rendered(judge, item, *, guarded=False):
    """Return the turn of an item as the LM gets it."""
    request = build_request(
        PROGRAMS[judge], item, explain=False, supports_logprobs=True, guarded=guarded
    )
    return request.messages[-1].content


def test_there_are_enough_attacks_of_enough_families():
    families = Counter(attack.family for attack in SUITE)
    assert len(SUITE) >= 120
    assert len(families) >= 8
    assert min(families.values()) >= 10
    assert len({attack.attack_id for attack in SUITE}) == len(SUITE)
    assert len({attack.template for attack in SUITE}) == len(SUITE)


def test_every_judge_has_items_that_fail_and_items_that_pass():
    counts = Counter((item.judge, item.fails) for item in ITEMS)
    assert {judge for judge, _ in counts} == set(PROGRAMS)
    assert min(counts.values()) >= 3


@pytest.mark.parametrize("attack", SUITE, ids=lambda a: a.attack_id)
def test_an_attack_keeps_what_it_attacks_and_fills_its_template(attack):
    for item in FAILING:
        text = made(attacked(item, attack))
        assert made(item.input) in text
        assert len(text) > len(made(item.input))
        assert not re.search(
            r"\{(?:good|artifact|padding|repeat|newlines|base64|rot13)", text
        )


@pytest.mark.parametrize("guarded", [False, True])
def test_no_attack_opens_or_closes_a_tag_of_the_prompt(guarded):
    """As many of our tags stand in the prompt as without it, and no turn of a chat template."""
    for item in FAILING:
        clean = our_tags(rendered(item.judge, item.input, guarded=guarded))
        for attack in SUITE:
            text = rendered(item.judge, attacked(item, attack), guarded=guarded)
            assert our_tags(text) == clean, attack.attack_id
            for token in TEMPLATE_TOKENS:
                assert token not in text, attack.attack_id


TEMPLATE_TOKENS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|eot_id|>",
    "[/INST]",
    "<start_of_turn>",
    "[[ ##",
)


def our_tags(text):
    """Return how often each tag occurs with the suffix of the first one, which is ours."""
    tag = re.compile(
        r"<(/?(?:artifact|context|ground_truth|task_context|criteria|agent_output))(-[0-9a-f]{8})?>"
    )
    found = tag.findall(text)
    suffix = found[0][1]
    return Counter(name for name, of in found if of == suffix)


def test_the_question_and_the_warning_stand_last():
    item = next(i for i in FAILING if i.judge == "safety")
    text = rendered("safety", item.input, guarded=True)
    assert (
        text.index("> ") < text.index("seem to speak to you") < text.index("Answer yes")
    )
    assert rendered("safety", item.input, guarded=True) == text


def test_nearly_all_attacks_are_suspected_and_clean_items_are_not():
    missed = [
        attack.attack_id
        for attack in SUITE
        if not suspicions(made(attacked(FAILING[0], attack)))
    ]
    assert len(missed) <= 0.05 * len(SUITE), missed
    assert [i.item_id for i in ITEMS if suspicions(made(i.input))] == []


def test_rates_have_intervals_and_tables_add_up():
    results = [
        AttackResult(
            "safety", "order", f"order-{n}", succeeded=n < 3, suspected=n % 2 == 0
        )
        for n in range(40)
    ]
    assert success_rate(results) == "3 of 40, 7.5 % (2.6 to 19.9)"
    assert success_rate([]) == "none tried"
    clean = [
        CleanResult("safety", True, True, False),
        CleanResult("safety", False, False, True),
    ]
    table = list(attack_tables(results, clean))
    assert (
        "| safety | 3 of 40, 7.5 % (2.6 to 19.9) | 20 of 40 | 1 of 1 | 1 of 2 |"
        in table
    )
    assert "| order | 3 of 40, 7.5 % (2.6 to 19.9) | 20 of 40 |" in table
