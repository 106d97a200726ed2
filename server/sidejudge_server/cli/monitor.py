"""`sidejudge monitor`: whether a deployed judge stays as good as it was."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

from google.protobuf.field_mask_pb2 import FieldMask

from sidejudge.v1 import monitoring_service_pb2 as pb
from sidejudge_server.cli.connection import connect
from sidejudge_server.cli.failures import EXIT_USAGE, CommandError
from sidejudge_server.cli.names import judge_name, short
from sidejudge_server.cli.paging import collect_pages
from sidejudge_server.cli.printing import (
    key_values,
    number,
    print_message,
    print_table,
)

__all__ = ["audit_items", "change", "events", "performance", "restart", "show"]

_SETTINGS = (
    "audit_share",
    "min_agreement",
    "tolerance",
    "auto_rollback",
    "rollback_evidence",
)
_TEXT_CHARS = 60


def show(args: argparse.Namespace) -> int:
    """Show what is known of a judge."""
    with connect(args) as session:
        monitor = session.client.monitoring.GetMonitor(
            pb.GetMonitorRequest(name=_name(args)), timeout=session.timeout_s
        ).monitor
    return _print(args, monitor)


def change(args: argparse.Namespace) -> int:
    """Change what the options name; the rest stays."""
    values = {
        name: value for name in _SETTINGS if (value := getattr(args, name)) is not None
    }
    if not values:
        raise CommandError(
            "nothing to change; see `sidejudge monitor set --help`",
            exit_code=EXIT_USAGE,
        )
    request = pb.UpdateMonitorRequest(monitor=pb.Monitor(name=_name(args), **values))
    request.update_mask.CopyFrom(FieldMask(paths=list(values)))
    with connect(args) as session:
        monitor = session.client.monitoring.UpdateMonitor(
            request, timeout=session.timeout_s
        ).monitor
    return _print(args, monitor)


def restart(args: argparse.Namespace) -> int:
    """Acknowledge an alarm and learn anew."""
    with connect(args) as session:
        monitor = session.client.monitoring.RestartMonitor(
            pb.RestartMonitorRequest(name=_name(args)), timeout=session.timeout_s
        ).monitor
    return _print(args, monitor)


def audit_items(args: argparse.Namespace) -> int:
    """List evaluations that were chosen by chance for people to label."""
    request = pb.ListAuditItemsRequest(parent=_name(args), unlabelled_only=not args.all)
    with connect(args) as session:
        found = collect_pages(
            session.client.monitoring.ListAuditItems,
            request,
            "evaluations",
            limit=args.limit,
            timeout_s=session.timeout_s,
        )
    if args.json:
        print_message(found)
        return 0
    print_table(
        ["evaluation", "when", ">chosen with", "judged"],
        [
            (
                short(e.name),
                f"{e.create_time.ToDatetime():%Y-%m-%d %H:%M}",
                f"{e.audit_probability:.0%}",
                (e.artifact_input.artifact or e.rubric_input.agent_output)[
                    :_TEXT_CHARS
                ],
            )
            for e in found.evaluations
        ],
    )
    return 0


def events(args: argparse.Namespace) -> int:
    """List what the monitor did."""
    request = pb.ListMonitorEventsRequest(parent=_name(args))
    with connect(args) as session:
        found = collect_pages(
            session.client.monitoring.ListMonitorEvents,
            request,
            "events",
            timeout_s=session.timeout_s,
        )
    if args.json:
        print_message(found)
        return 0
    print_table(
        ["when", "what", ">version", "why"],
        [
            (
                f"{e.create_time.ToDatetime():%Y-%m-%d %H:%M:%S}",
                pb.MonitorEvent.Kind.Name(e.kind).removeprefix("KIND_").lower(),
                short(e.judge_version),
                e.reason,
            )
            for e in found.events
        ],
    )
    return 0


def performance(args: argparse.Namespace) -> int:
    """Print agreement over time, from audit items alone."""
    request = pb.QueryPerformanceRequest(
        parent=_name(args),
        bucket=pb.QueryPerformanceRequest.Bucket.Value(f"BUCKET_{args.bucket.upper()}"),
    )
    request.start_time.FromDatetime(datetime.now(UTC) - timedelta(days=args.days))
    with connect(args) as session:
        found = session.client.monitoring.QueryPerformance(
            request, timeout=session.timeout_s
        )
    if args.json:
        print_message(found)
        return 0
    print_table(
        ["when", ">version", ">items", ">labelled", "agreement", "of all so far", ">p50 ms", ">p95 ms"],
        [
            (
                f"{p.bucket_time.ToDatetime():%Y-%m-%d %H:%M}",
                short(p.judge_version),
                p.audit_items,
                p.labelled,
                f"{p.agreement:.2f} [{p.agreement_low:.2f}, {p.agreement_high:.2f}]"
                if p.HasField("agreement")
                else None,
                f"{p.cumulative_agreement:.2f} [{p.cumulative_low:.2f}, {p.cumulative_high:.2f}]"
                if p.HasField("cumulative_low")
                else None,
                number(p.latency_ms_p50, digits=0),
                number(p.latency_ms_p95, digits=0),
            )
            for p in found.points
        ],
    )  # fmt: skip
    return 0


def _name(args: argparse.Namespace) -> str:
    return f"{judge_name(args.judge)}/monitor"


def _print(args: argparse.Namespace, monitor: pb.Monitor) -> int:
    if args.json:
        print_message(monitor)
        return 0
    status = monitor.status
    compared = None
    if status.previous_version:
        compared = (
            f"version {short(status.previous_version)}: {status.previous_wins} wins,"
            f" {status.previous_losses} losses, {status.ties} ties, evidence that it is better"
            f" {status.previous_better_e_value:.3g} of {monitor.rollback_evidence:g}"
        )
    key_values(
        [
            ("judge", monitor.name.split("/")[1]),
            (
                "state",
                pb.MonitorStatus.State.Name(status.state)
                .removeprefix("STATE_")
                .lower()
                .replace("_", " "),
            ),
            ("version", short(status.judge_version)),
            ("audit share", f"{monitor.audit_share:.0%}"),
            ("audit labels", status.audit_labels),
            (
                "agreement",
                number(status.agreement) if status.HasField("agreement") else None,
            ),
            (
                "alarms below",
                number(status.min_agreement)
                if status.HasField("min_agreement")
                else "not known yet",
            ),
            ("drift statistic", f"{status.drift_statistic:.4g} (alarm at 1000)"),
            ("compared with", compared),
            ("rolls back by itself", "yes" if monitor.auto_rollback else "no"),
            ("what happened", status.reason),
        ]
    )
    return 0
