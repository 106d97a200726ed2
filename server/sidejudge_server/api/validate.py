"""Checks request fields and remembers every violation, so that a caller learns all at once.

A converter makes one `Checker`, takes each field through it, and calls `raise_if_any` at the
end. What the checker returns for a wrong field is a placeholder that never leaves the converter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from sidejudge_server.api.names import (
    JUDGE_ID,
    VersionName,
    parse_id,
    parse_judge,
    parse_monitor,
    parse_policy,
    parse_version,
)
from sidejudge_server.errors import FieldViolation, InvalidRequestError

__all__ = ["DEFAULT_PAGE_SIZE", "MAX_PAGE_SIZE", "Checker"]

T = TypeVar("T")

DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 1000
MAX_LABELS: Final = 32
MAX_LABEL_CHARS: Final = 128

# uuid.UUID takes ten times as long and also reads braces, urn: and no dashes.
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class Checker:
    """Collects violations of one request.

    Args:
        max_text_chars: Limit of text fields that have no limit of their own.
        prefix: Path before every field, such as ``requests[3].``.
    """

    def __init__(self, max_text_chars: int, *, prefix: str = "") -> None:
        self.max_text_chars = max_text_chars
        self.violations: list[FieldViolation] = []
        self._prefix = prefix

    def within(self, prefix: str) -> Checker:
        """Return a checker for a nested message that collects into this one."""
        inner = Checker(self.max_text_chars, prefix=f"{self._prefix}{prefix}")
        inner.violations = self.violations
        return inner

    def add(self, field: str, description: str) -> None:
        """Note a violation."""
        path = f"{self._prefix}{field}"
        self.violations.append(FieldViolation(path, description))

    def raise_if_any(self) -> None:
        """Raise InvalidRequestError with all violations, if there are any."""
        if self.violations:
            raise InvalidRequestError(self.violations)

    def passed(self, value: T | None) -> T:
        """Return a required value, or raise InvalidRequestError with all violations."""
        self.raise_if_any()
        if value is None:
            raise AssertionError("a required value is missing without a violation")
        return value

    def text(
        self,
        field: str,
        value: str,
        *,
        limit: int | None = None,
        required: bool = False,
    ) -> str:
        """Check a text: not blank if required, at most ``limit`` characters."""
        limit = self.max_text_chars if limit is None else limit
        if required and not value.strip():
            self.add(field, "is required and must not be blank")
        if len(value) > limit:
            self.add(field, f"has {len(value)} characters; at most {limit} are allowed")
        return value

    def labels(self, field: str, labels: Mapping[str, str]) -> dict[str, str]:
        """Check a label map: at most 32 entries, keys and values at most 128 characters."""
        if len(labels) > MAX_LABELS:
            self.add(
                field, f"has {len(labels)} entries; at most {MAX_LABELS} are allowed"
            )
        if any(not key for key in labels):
            self.add(field, "has an empty key")
        too_long = any(
            len(text) > MAX_LABEL_CHARS for item in labels.items() for text in item
        )
        if too_long:
            self.add(
                field,
                f"has a key or value of more than {MAX_LABEL_CHARS} characters",
            )
        return dict(labels)

    def request_id(self, value: str, *, field: str = "request_id") -> str | None:
        """Check an optional UUID; return its canonical form, None if it is empty."""
        if not value:
            return None
        canonical = value.lower()
        if not _UUID.fullmatch(canonical):
            self.add(field, "must be a UUID with dashes, such as one of version 4")
            return None
        return canonical

    def last_request_id(self, value: str) -> str:
        """Check an optional request_id as the last field; "" if it is empty.

        Raises:
            InvalidRequestError: It or a field before it is wrong.
        """
        request_id = self.request_id(value)
        self.raise_if_any()
        return request_id or ""

    def judge_id(self, field: str, value: str) -> str:
        """Check an id that a caller chooses."""
        if not JUDGE_ID.fullmatch(value):
            self.add(
                field,
                "must be 1 to 63 lowercase letters, digits or hyphens, start with a "
                "letter and not end with a hyphen",
            )
        return value

    def judge(self, field: str, name: str, *, required: bool = True) -> str | None:
        """Check `judges/{judge}`; return the id, None if it is empty or wrong."""
        if self._missing(field, name, required=required):
            return None
        judge_id = parse_judge(name)
        if judge_id is None:
            self.add(field, "must have the form judges/{judge}")
        return judge_id

    def monitor(self, field: str, name: str) -> str | None:
        """Check `judges/{judge}/monitor`; return the judge's id."""
        if self._missing(field, name, required=True):
            return None
        judge_id = parse_monitor(name)
        if judge_id is None:
            self.add(field, "must have the form judges/{judge}/monitor")
        return judge_id

    def policy(self, field: str, name: str) -> str | None:
        """Check `judges/{judge}/optimizationPolicy`; return the judge's id."""
        if self._missing(field, name, required=True):
            return None
        judge_id = parse_policy(name)
        if judge_id is None:
            self.add(field, "must have the form judges/{judge}/optimizationPolicy")
        return judge_id

    def version(
        self, field: str, name: str, *, required: bool = True
    ) -> VersionName | None:
        """Check `judges/{judge}/versions/{version}`."""
        if self._missing(field, name, required=required):
            return None
        version = parse_version(name)
        if version is None:
            self.add(field, "must have the form judges/{judge}/versions/{version}")
        return version

    def resource(
        self, field: str, name: str, collection: str, *, required: bool = True
    ) -> str | None:
        """Check `{collection}/{id}`; return the id, None if it is empty or wrong."""
        if self._missing(field, name, required=required):
            return None
        resource_id = parse_id(collection, name)
        if resource_id is None:
            self.add(field, f"must have the form {collection}/{{id}}")
        return resource_id

    def page_size(self, value: int) -> int:
        """Return the page size: 50 for 0, capped at 1,000; negative is a violation."""
        if value < 0:
            self.add("page_size", "must not be negative")
        return min(value, MAX_PAGE_SIZE) if value > 0 else DEFAULT_PAGE_SIZE

    def unit_interval(self, field: str, value: float) -> float:
        """Check a number in 0..1; NaN is a violation."""
        if math.isnan(value) or not 0.0 <= value <= 1.0:
            self.add(field, f"must be a number from 0 to 1, not {value}")
        return value

    def finite(self, field: str, value: float, *, at_least: float = -math.inf) -> float:
        """Check a number that is neither NaN nor infinite."""
        if not math.isfinite(value):
            self.add(field, f"must be a finite number, not {value}")
        elif value < at_least:
            self.add(field, f"must be at least {at_least}, not {value}")
        return value

    def whole(self, field: str, value: int, *, low: int, high: int) -> int:
        """Check a whole number in ``low``..``high``."""
        if not low <= value <= high:
            self.add(field, f"must be from {low} to {high}, not {value}")
        return value

    def count(self, field: str, number: int, *, low: int, high: int) -> None:
        """Check how many items a list has."""
        if not low <= number <= high:
            self.add(field, f"must have {low} to {high} items, not {number}")

    def enum(
        self, field: str, value: int, enum: EnumDescriptor, *, required: bool = False
    ) -> int:
        """Check an enum value: known, and not the unspecified one if required."""
        if value not in enum.values_by_number:
            known = ", ".join(v.name for v in enum.values if v.number)
            self.add(field, f"has the unknown value {value}; known: {known}")
        elif required and value == 0:
            known = ", ".join(v.name for v in enum.values if v.number)
            self.add(field, f"is required; one of {known}")
        return value

    def time(self, field: str, value: Timestamp) -> datetime | None:
        """Check a time within the years 1 to 9999; return it in UTC."""
        try:
            return value.ToDatetime(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.add(field, "is not a time in the years 1 to 9999")
            return None

    def _missing(self, field: str, value: str, *, required: bool) -> bool:
        if not value and required:
            self.add(field, "is required")
        return not value
