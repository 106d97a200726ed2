"""The checker of request fields."""

import math

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sidejudge.v1 import judge_pb2
from sidejudge_server.api.validate import Checker
from sidejudge_server.errors import InvalidRequestError

UUID = "123e4567-e89b-42d3-a456-426614174000"


@pytest.fixture
def checker() -> Checker:
    return Checker(100)


def wrong_fields(checker: Checker) -> list[str]:
    return [violation.field for violation in checker.violations]


def test_all_violations_are_raised_at_once(checker):
    """A caller mends a request in one go."""
    checker.judge("judge", "nonsense")
    checker.text("subject", "x" * 257, limit=256)
    checker.request_id("nonsense")
    with pytest.raises(InvalidRequestError) as caught:
        checker.raise_if_any()
    assert [v.field for v in caught.value.violations] == [
        "judge",
        "subject",
        "request_id",
    ]
    assert caught.value.metadata == {"fields": "judge,subject,request_id"}


def test_nothing_is_raised_without_violations(checker):
    """A good request passes."""
    assert checker.judge("judge", "judges/safety") == "safety"
    checker.raise_if_any()


def test_nested_fields_carry_their_path(checker):
    """A violation in item 3 says so."""
    checker.within("requests[3].").within("input.").text("artifact", " ", required=True)
    assert wrong_fields(checker) == ["requests[3].input.artifact"]


@pytest.mark.parametrize("value", ["", " ", "\n\t"])
def test_blank_is_missing(checker, value):
    """White space is not a text."""
    checker.text("artifact", value, required=True)
    assert wrong_fields(checker) == ["artifact"]


def test_text_may_have_exactly_the_limit(checker):
    """The limit itself is allowed; characters count, not bytes."""
    checker.text("artifact", "ä" * 100)
    assert wrong_fields(checker) == []
    checker.text("artifact", "ä" * 101)
    assert wrong_fields(checker) == ["artifact"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.001, 1.001])
def test_scores_outside_the_unit_interval_are_violations(checker, value):
    """NaN compares false with everything and still is refused."""
    checker.unit_interval("score", value)
    assert wrong_fields(checker) == ["score"]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_scores_in_the_unit_interval_pass(checker, value):
    """Both ends belong to it."""
    assert checker.unit_interval("score", value) == value
    assert wrong_fields(checker) == []


@pytest.mark.parametrize(
    "value",
    ["x", UUID.replace("-", ""), "{" + UUID + "}", "urn:uuid:" + UUID, UUID + " "],
)
def test_request_ids_are_plain_uuids(checker, value):
    """Other spellings that Python reads are refused: one id has one spelling."""
    checker.request_id(value)
    assert wrong_fields(checker) == ["request_id"]


def test_request_ids_are_compared_without_case(checker):
    """The canonical form is lower case."""
    assert checker.request_id(UUID.upper()) == UUID
    assert checker.request_id("") is None
    assert wrong_fields(checker) == []


@pytest.mark.parametrize(
    "labels",
    [
        {str(n): "" for n in range(33)},
        {"": "value"},
        {"k" * 129: "value"},
        {"key": "v" * 129},
    ],
)
def test_label_maps_have_limits(checker, labels):
    """At most 32 entries of at most 128 characters, keys not empty."""
    checker.labels("labels", labels)
    assert wrong_fields(checker) == ["labels"]


def test_unknown_enum_values_are_violations_that_name_the_known_ones(checker):
    """proto3 lets unknown numbers through; the server does not."""
    checker.enum("verdict", 9, judge_pb2.Verdict.DESCRIPTOR)
    assert "VERDICT_PASS, VERDICT_FAIL, VERDICT_PARTIAL" in str(
        checker.violations[0].description
    )


def test_unspecified_enum_values_are_violations_only_where_required(checker):
    """Zero means not set."""
    checker.enum("verdict", 0, judge_pb2.Verdict.DESCRIPTOR)
    assert wrong_fields(checker) == []
    checker.enum("verdict", 0, judge_pb2.Verdict.DESCRIPTOR, required=True)
    assert wrong_fields(checker) == ["verdict"]


@pytest.mark.parametrize(
    ("asked", "given"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)]
)
def test_page_size_is_coerced(checker, asked, given):
    """50 by default, never more than 1,000."""
    assert checker.page_size(asked) == given
    assert wrong_fields(checker) == []


def test_negative_page_size_is_a_violation(checker):
    """AIP-158."""
    checker.page_size(-1)
    assert wrong_fields(checker) == ["page_size"]


def test_times_outside_the_calendar_are_violations(checker):
    """A Timestamp can hold more than Python's calendar."""
    checker.time("start_time", Timestamp(seconds=10**15))
    checker.time("end_time", Timestamp(nanos=-1))
    assert wrong_fields(checker) == ["start_time", "end_time"]
