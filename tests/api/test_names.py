"""Resource names."""

import pytest

from sidejudge_server.api.names import (
    VersionName,
    judge_name,
    parse_id,
    parse_judge,
    parse_version,
    version_name,
)


@pytest.mark.parametrize("judge_id", ["a", "safety", "a-1", "a" * 63])
def test_judge_names_are_read_back(judge_id):
    """Every allowed id survives the round trip."""
    assert parse_judge(judge_name(judge_id)) == judge_id


@pytest.mark.parametrize(
    "name",
    [
        "",
        "safety",
        "judges/",
        "judges/A",
        "judges/1a",
        "judges/a-",
        "judges/a/b",
        "judges/a\n",
        "judge/a",
        "judges/" + "a" * 64,
        "judges/ä",
    ],
)
def test_other_forms_are_no_judge_names(name):
    """Only `judges/{judge}` with an allowed id is one."""
    assert parse_judge(name) is None


def test_version_names_are_read_back():
    """Judge and number survive the round trip."""
    assert parse_version(version_name("safety", 12)) == VersionName("safety", 12)


@pytest.mark.parametrize(
    "name",
    [
        "judges/a/versions/0",
        "judges/a/versions/01",
        "judges/a/versions/-1",
        "judges/a/versions/1/versions/2",
        "judges/a/versions/",
        "judges/a",
        "judges/A/versions/1",
        "judges/a/versions/9999999999",
        "judges/a/versions/\u0661",
    ],
)
def test_other_forms_are_no_version_names(name):
    """Versions count from 1 in plain digits."""
    assert parse_version(name) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("evaluations/0190-ab", "0190-ab"),
        ("evaluations/x", "x"),
        ("evaluations/", None),
        ("evaluations/a/b", None),
        ("evaluations/a b", None),
        ("feedback/a", None),
        ("evaluations/" + "a" * 65, None),
    ],
)
def test_ids_are_taken_from_their_own_collection_only(name, expected):
    """The collection must match; the id may be any short word."""
    assert parse_id("evaluations", name) == expected
