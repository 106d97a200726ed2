"""Resource names from what people type: `relevance` or `judges/relevance`."""

from __future__ import annotations

from sidejudge_server.cli.failures import EXIT_USAGE, CommandError

__all__ = [
    "evaluation_name",
    "judge_name",
    "optimization_name",
    "policy_name",
    "short",
    "version_name",
    "version_reference",
]


def judge_name(text: str) -> str:
    """Return `judges/{judge}`."""
    return _name(text, "judges")


def evaluation_name(text: str) -> str:
    """Return `evaluations/{evaluation}`."""
    return _name(text, "evaluations")


def optimization_name(text: str) -> str:
    """Return `optimizations/{optimization}`."""
    return _name(text, "optimizations")


def policy_name(judge: str) -> str:
    """Return `judges/{judge}/optimizationPolicy`."""
    return f"{judge_name(judge)}/optimizationPolicy"


def version_name(judge: str, version: str) -> str:
    """Return `judges/{judge}/versions/{version}`; the version may be a number or a full name.

    Raises:
        CommandError: The version is no number, or belongs to another judge.
    """
    parent = judge_name(judge)
    number = version.removeprefix(f"{parent}/versions/").removeprefix("v")
    if not number.isdigit():
        raise CommandError(
            f"{version!r} is no version of {parent}; give its number",
            exit_code=EXIT_USAGE,
        )
    return f"{parent}/versions/{number}"


def version_reference(text: str) -> str:
    """Return `judges/{judge}/versions/{version}` from that, `relevance/3` or `relevance/v3`.

    Raises:
        CommandError: It is none of these.
    """
    judge, _, version = text.removeprefix("judges/").partition("/")
    if not judge or not version:
        raise CommandError(
            f"{text!r} is no version; give JUDGE/NUMBER such as relevance/3",
            exit_code=EXIT_USAGE,
        )
    return version_name(judge, version.removeprefix("versions/"))


def short(name: str) -> str:
    """Return a name for a table: `relevance v3` for a version, else its last part."""
    parts = name.split("/")
    if len(parts) == 4 and parts[2] == "versions":  # noqa: PLR2004 - judges/x/versions/n
        return f"{parts[1]} v{parts[3]}"
    return parts[-1]


def _name(text: str, collection: str) -> str:
    identifier = text.removeprefix(f"{collection}/")
    if not identifier or "/" in identifier:
        raise CommandError(
            f"{text!r} is not a name in {collection}", exit_code=EXIT_USAGE
        )
    return f"{collection}/{identifier}"
