"""Resource names: `judges/{judge}`, `judges/{judge}/versions/{n}`, `evaluations/{id}` and so on."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = [
    "JUDGE_ID",
    "VersionName",
    "evaluation_name",
    "example_name",
    "experiment_name",
    "feedback_name",
    "judge_name",
    "monitor_name",
    "optimization_name",
    "parse_id",
    "parse_judge",
    "parse_monitor",
    "parse_policy",
    "parse_version",
    "policy_name",
    "trial_name",
    "version_name",
]

JUDGE_ID = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_SERVER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


@dataclass(frozen=True, slots=True)
class VersionName:
    """A judge version; versions count from 1."""

    judge_id: str
    version: int


def judge_name(judge_id: str) -> str:
    """Return `judges/{judge}`."""
    return f"judges/{judge_id}"


def version_name(judge_id: str, version: int) -> str:
    """Return `judges/{judge}/versions/{version}`."""
    return f"judges/{judge_id}/versions/{version}"


def evaluation_name(evaluation_id: str) -> str:
    """Return `evaluations/{evaluation}`."""
    return f"evaluations/{evaluation_id}"


def feedback_name(feedback_id: str) -> str:
    """Return `feedback/{feedback}`."""
    return f"feedback/{feedback_id}"


def example_name(example_id: str) -> str:
    """Return `trainingExamples/{training_example}`."""
    return f"trainingExamples/{example_id}"


def experiment_name(experiment_id: str) -> str:
    """Return `experiments/{experiment}`."""
    return f"experiments/{experiment_id}"


def optimization_name(optimization_id: str) -> str:
    """Return `optimizations/{optimization}`."""
    return f"optimizations/{optimization_id}"


def trial_name(optimization_id: str, trial: int) -> str:
    """Return `optimizations/{optimization}/trials/{trial}`; trial 0 is the baseline."""
    return f"optimizations/{optimization_id}/trials/{trial}"


def policy_name(judge_id: str) -> str:
    """Return `judges/{judge}/optimizationPolicy`; each judge has one."""
    return f"judges/{judge_id}/optimizationPolicy"


def monitor_name(judge_id: str) -> str:
    """Return `judges/{judge}/monitor`; each judge has one."""
    return f"judges/{judge_id}/monitor"


def parse_monitor(name: str) -> str | None:
    """Return the judge id of `judges/{judge}/monitor`, None for another form."""
    judge, separator, rest = name.partition("/monitor")
    return parse_judge(judge) if separator and not rest else None


def parse_policy(name: str) -> str | None:
    """Return the judge id of `judges/{judge}/optimizationPolicy`, None for another form."""
    judge, separator, rest = name.partition("/optimizationPolicy")
    return parse_judge(judge) if separator and not rest else None


def parse_judge(name: str) -> str | None:
    """Return the judge id of `judges/{judge}`, None if the name has another form."""
    collection, _, judge_id = name.partition("/")
    if collection != "judges" or not JUDGE_ID.fullmatch(judge_id):
        return None
    return judge_id


def parse_version(name: str) -> VersionName | None:
    """Return the parts of `judges/{judge}/versions/{version}`, None for another form."""
    judge, separator, version = name.partition("/versions/")
    judge_id = parse_judge(judge)
    if judge_id is None or not separator or not _VERSION.fullmatch(version):
        return None
    return VersionName(judge_id, int(version))


def parse_id(collection: str, name: str) -> str | None:
    """Return the id of `{collection}/{id}`, None if the name has another form."""
    prefix, _, resource_id = name.partition("/")
    if prefix != collection or not _SERVER_ID.fullmatch(resource_id):
        return None
    return resource_id
