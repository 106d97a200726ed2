"""`sidejudge judges`: judges, their versions, and which one serves."""

from __future__ import annotations

import argparse
from pathlib import Path

from sidejudge.v1 import judge_pb2, judge_service_pb2
from sidejudge_server.benchmark.wire import verdict_word
from sidejudge_server.cli.connection import Session, connect
from sidejudge_server.cli.failures import EXIT_USAGE, CommandError
from sidejudge_server.cli.names import judge_name, short, version_name
from sidejudge_server.cli.paging import collect_pages
from sidejudge_server.cli.printing import (
    key_values,
    number,
    print_message,
    print_table,
    say,
)

__all__ = [
    "create",
    "delete",
    "deploy",
    "list_judges",
    "rollback",
    "show",
    "version",
    "versions",
]


def list_judges(args: argparse.Namespace) -> int:
    """List the judges by name."""
    with connect(args) as session:
        page = collect_pages(
            session.client.judges.ListJudges,
            judge_service_pb2.ListJudgesRequest(),
            "judges",
            timeout_s=session.timeout_s,
        )
    if args.json:
        print_message(page)
        return 0
    print_table(
        ["judge", "kind", "serves", "built in", "description"],
        (
            (
                short(j.name),
                j.WhichOneof("kind"),
                short(j.deployed_version),
                "yes" if j.built_in else "no",
                j.description,
            )
            for j in page.judges
        ),
    )
    return 0


def show(args: argparse.Namespace) -> int:
    """Show a judge; without --json also the version that serves."""
    with connect(args) as session:
        judge = session.client.judges.GetJudge(
            judge_service_pb2.GetJudgeRequest(name=judge_name(args.judge)),
            timeout=session.timeout_s,
        ).judge
        if args.json:
            print_message(judge)
            return 0
        serving = _version(session, judge.deployed_version)
    _print_judge(judge)
    say()
    if judge.HasField("shadow"):
        _print_shadow(judge.shadow)
        say()
    _print_version(serving)
    return 0


def versions(args: argparse.Namespace) -> int:
    """List the versions, newest first."""
    parent = judge_name(args.judge)
    with connect(args) as session:
        page = collect_pages(
            session.client.judges.ListJudgeVersions,
            judge_service_pb2.ListJudgeVersionsRequest(parent=parent),
            "judge_versions",
            timeout_s=session.timeout_s,
        )
        judge = session.client.judges.GetJudge(
            judge_service_pb2.GetJudgeRequest(name=parent), timeout=session.timeout_s
        ).judge
    if args.json:
        print_message(page)
        return 0
    print_table(
        ["version", "serves", "origin", "parent", ">demos", "model", "made"],
        (
            (
                short(v.name),
                "yes" if v.name == judge.deployed_version else "",
                _origin(v),
                short(v.parent) if v.parent else None,
                len(v.demonstrations),
                v.model,
                f"{v.create_time.ToDatetime():%Y-%m-%d %H:%M:%S}",
            )
            for v in page.judge_versions
        ),
    )
    return 0


def version(args: argparse.Namespace) -> int:
    """Show one version: instructions, demonstrations, decision rule, measurements."""
    with connect(args) as session:
        found = _version(session, version_name(args.judge, args.version))
    if args.json:
        print_message(found)
    else:
        _print_version(found)
    return 0


def create(args: argparse.Namespace) -> int:
    """Create a judge with version 1, deployed."""
    request = judge_service_pb2.CreateJudgeRequest(
        judge_id=judge_name(args.judge).removeprefix("judges/"),
        judge=_judge(args),
    )
    if args.kind != "custom":
        request.instructions = _instructions(args)
    with connect(args) as session:
        judge = session.client.judges.CreateJudge(
            request, timeout=session.timeout_s
        ).judge
    return _report(args, judge, "exists")


def deploy(args: argparse.Namespace) -> int:
    """Make a version serve."""
    request = judge_service_pb2.DeployJudgeVersionRequest(
        name=version_name(args.judge, args.version),
        author=args.author,
        reason=args.reason,
    )
    with connect(args) as session:
        judge = session.client.judges.DeployJudgeVersion(
            request, timeout=session.timeout_s
        ).judge
    return _report(args, judge, "is deployed")


def rollback(args: argparse.Namespace) -> int:
    """Return to the version that served before."""
    request = judge_service_pb2.RollbackJudgeRequest(
        name=judge_name(args.judge),
        author=args.author,
        reason=args.reason,
    )
    with connect(args) as session:
        judge = session.client.judges.RollbackJudge(
            request, timeout=session.timeout_s
        ).judge
    return _report(args, judge, "is rolled back")


def delete(args: argparse.Namespace) -> int:
    """Take a judge out of service."""
    name = judge_name(args.judge)
    with connect(args) as session:
        answer = session.client.judges.DeleteJudge(
            judge_service_pb2.DeleteJudgeRequest(name=name), timeout=session.timeout_s
        )
    if args.json:
        print_message(answer)
    else:
        say(f"{short(name)} is out of service.")
    return 0


def _report(args: argparse.Namespace, judge: judge_pb2.Judge, what: str) -> int:
    if args.json:
        print_message(judge)
    else:
        say(f"{short(judge.name)} {what}; {short(judge.deployed_version)} serves.")
    return 0


def _version(session: Session, name: str) -> judge_pb2.JudgeVersion:
    found: judge_pb2.JudgeVersion = session.client.judges.GetJudgeVersion(
        judge_service_pb2.GetJudgeVersionRequest(name=name), timeout=session.timeout_s
    ).judge_version
    return found


def _instructions(args: argparse.Namespace) -> str:
    """Return the instructions from the option or the file.

    Raises:
        CommandError: Both are given, or the file cannot be read.
    """
    if args.instructions_file is None:
        return str(args.instructions)
    if args.instructions:
        raise CommandError(
            "give --instructions or --instructions-file, not both", exit_code=EXIT_USAGE
        )
    try:
        return Path(args.instructions_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            f"{args.instructions_file}: {error}", exit_code=EXIT_USAGE
        ) from error


def _judge(args: argparse.Namespace) -> judge_pb2.Judge:
    judge = judge_pb2.Judge(
        display_name=args.display_name,
        description=args.description,
        labels=dict(args.label),
    )
    if args.kind == "custom":
        scores = args.output == "score"
        judge.custom.CopyFrom(
            judge_pb2.CustomSpec(
                instructions=_instructions(args),
                question=args.question,
                output=judge_pb2.CustomSpec.OUTPUT_SCORE
                if scores
                else judge_pb2.CustomSpec.OUTPUT_VERDICT,
                input_fields=args.input_field,
                binary=args.binary,
            )
        )
    elif args.kind == "rubric":
        judge.rubric.CopyFrom(
            judge_pb2.RubricSpec(
                default_criteria=[
                    judge_pb2.Criterion(name=name, description=description)
                    for name, description in args.criterion
                ]
            )
        )
    else:
        getattr(judge, args.kind).SetInParent()
    return judge


def _print_judge(judge: judge_pb2.Judge) -> None:
    key_values(
        [
            ("judge", short(judge.name)),
            ("name", judge.display_name),
            ("description", judge.description),
            ("kind", judge.WhichOneof("kind")),
            ("serves", short(judge.deployed_version)),
            ("built in", "yes" if judge.built_in else "no"),
            ("labels", ", ".join(f"{k}={v}" for k, v in sorted(judge.labels.items()))),
            *(
                (f"  {c.name}", c.description or None)
                for c in judge.rubric.default_criteria
            ),
        ]
    )


def _print_shadow(shadow: judge_pb2.ShadowCandidate) -> None:
    state = judge_pb2.ShadowCandidate.State.Name(shadow.state)
    key_values(
        [
            ("in shadow", short(shadow.version)),
            ("state", state.removeprefix("STATE_").lower()),
            ("against", short(shadow.baseline_version)),
            ("optimization", short(shadow.optimization)),
            ("wins, losses", f"{shadow.wins}, {shadow.losses}"),
            ("pairs", f"{shadow.pairs}, {shadow.later_pairs} after the gate"),
            ("evidence", f"{number(shadow.e_value, digits=1)} of {shadow.bar:g}"),
            ("because", shadow.reason or None),
        ]
    )


def _print_version(shown: judge_pb2.JudgeVersion) -> None:
    rule, score_map = shown.decision_rule, shown.score_map
    key_values(
        [
            ("version", short(shown.name)),
            ("origin", _origin(shown)),
            ("parent", short(shown.parent) if shown.parent else None),
            ("optimization", short(shown.optimization) if shown.optimization else None),
            ("model", shown.model),
            ("instructions", shown.instructions),
            ("question", shown.question),
            (
                "decision rule",
                f"pass {rule.pass_offset:+.3f}, partial {rule.partial_offset:+.3f} nats"
                if shown.HasField("decision_rule")
                else None,
            ),
            (
                "score map",
                f"{score_map.intercept:.3f} + {score_map.slope:.3f} * raw"
                if shown.HasField("score_map")
                else None,
            ),
            *((name, number(value)) for name, value in sorted(shown.metrics.items())),
        ]
    )
    for position, demo in enumerate(shown.demonstrations, start=1):
        answer = (
            verdict_word(demo.verdict)
            if demo.HasField("verdict")
            else number(demo.score, digits=2)
        )
        say(f"\ndemonstration {position}: {answer}")
        key_values([*sorted(demo.inputs.items()), ("reasoning", demo.reasoning)])


def _origin(shown: judge_pb2.JudgeVersion) -> str:
    name = judge_pb2.JudgeVersion.Origin.Name(shown.origin)
    return name.removeprefix("ORIGIN_").lower()
