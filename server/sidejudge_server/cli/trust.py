"""`sidejudge trust`: how far a judge's confidence can be believed, and what may be used unseen."""

from __future__ import annotations

import argparse

from sidejudge.v1 import evaluation_pb2
from sidejudge.v1 import trust_service_pb2 as pb
from sidejudge_server.benchmark.wire import verdict_word
from sidejudge_server.cli.connection import connect
from sidejudge_server.cli.names import judge_name, short, version_name
from sidejudge_server.cli.printing import key_values, print_message, print_table, say

__all__ = [
    "certify",
    "consistency",
    "decision_words",
    "labelled_figure",
    "report",
    "selection_words",
    "show",
]

_METHODS = {
    evaluation_pb2.ConfidenceCalibration.METHOD_TEMPERATURE: "temperature",
    evaluation_pb2.ConfidenceCalibration.METHOD_PLATT: "Platt",
    evaluation_pb2.ConfidenceCalibration.METHOD_BETA: "beta",
}


def show(args: argparse.Namespace) -> int:
    """Show what labels say of a version's confidence."""
    with connect(args) as session:
        answer = session.client.trust.GetConfidenceCalibration(
            pb.GetConfidenceCalibrationRequest(name=_name(args)),
            timeout=session.timeout_s,
        )
    if args.json:
        print_message(answer)
        return 0
    found = answer.calibration
    agreement = answer.agreement if answer.HasField("agreement") else None
    key_values(
        [
            ("version", f"{short(answer.judge_version)} with {answer.model}"),
            ("audit labels", str(found.labels)),
            ("agreement", None if agreement is None else f"{agreement:.1%}"),
            ("mapped by", _METHODS.get(found.method)),
            ("Brier score", _figure(found, "brier_score")),
            ("  before", _figure(found, "raw_brier_score")),
            ("  improvement", _figure(found, "brier_improvement")),
            ("calibration error", _figure(found, "calibration_error")),
            ("AUROC", _figure(found, "auroc")),
            ("no map because", found.reason or None),
        ]
    )
    return 0


def certify(args: argparse.Namespace) -> int:
    """Show which share of a version's answers meets a target."""
    selection = evaluation_pb2.Selection(
        target_agreement=args.target_agreement, assurance=args.assurance
    )
    with connect(args) as session:
        answer = session.client.trust.CertifySelection(
            pb.CertifySelectionRequest(name=_name(args), selection=selection),
            timeout=session.timeout_s,
        )
    if args.json:
        print_message(answer)
        return 0
    found = answer.certificate
    threshold = found.threshold if found.HasField("threshold") else None
    missing = found.labels_missing if found.HasField("labels_missing") else None
    key_values(
        [
            ("version", f"{short(answer.judge_version)} with {answer.model}"),
            ("accepts from", None if threshold is None else f"{threshold:.4g}"),
            ("coverage", f"{found.coverage:.0%}"),
            ("audit labels", str(found.audit_labels)),
            (
                "accepted ones",
                f"{found.accepted_labels}, of which {found.accepted_errors} wrong",
            ),
            ("labels missing", None if missing is None else f"about {missing}"),
            ("in words", found.reason),
        ]
    )
    return 0


def report(args: argparse.Namespace) -> int:
    """Show a version beside people."""
    request = pb.GetJudgeReportRequest(
        name=_name(args),
        include_picked=args.include_picked,
        slice_label=args.slice,
        epsilon=args.epsilon,
    )
    with connect(args) as session:
        answer = session.client.trust.GetJudgeReport(request, timeout=session.timeout_s)
    if args.json:
        print_message(answer)
        return 0
    test = answer.annotator_test
    key_values(
        [
            ("version", f"{short(answer.judge_version)} with {answer.model}"),
            ("labelled items", str(answer.items)),
            ("agreement", _figure(answer, "agreement")),
            ("finds of what fails", _figure(answer, "true_positive_rate")),
            ("passes of the rest", _figure(answer, "true_negative_rate")),
            ("balanced accuracy", _figure(answer, "balanced_accuracy")),
            ("kappa", _figure(answer, "kappa")),
            ("mean absolute error", _figure(answer, "mean_absolute_error")),
            (
                "Spearman",
                f"{answer.spearman:.3f}" if answer.HasField("spearman") else None,
            ),
            (
                "instead of annotators",
                test.reason
                or f"wins over {test.winning_rate:.0%} of {test.annotators}: "
                + ("yes" if test.may_replace else "no"),
            ),
            ("no figures because", answer.reason or None),
        ]
    )
    if answer.confusion:
        say("")
        print_table(
            ["people say", "it says", "items"],
            (
                (verdict_word(c.label), verdict_word(c.verdict), str(c.count))
                for c in answer.confusion
            ),
        )
    for title, parts in (("source", answer.by_source), (args.slice, answer.by_slice)):
        if parts:
            say("")
            print_table(
                [title, "items", "agreement"],
                ((p.name or "-", str(p.items), _figure(p, "agreement")) for p in parts),
            )
    return 0


def consistency(args: argparse.Namespace) -> int:
    """Show how far a version agrees with itself."""
    with connect(args) as session:
        answer = session.client.trust.GetJudgeConsistency(
            pb.GetJudgeConsistencyRequest(name=_name(args)), timeout=session.timeout_s
        )
    if args.json:
        print_message(answer)
        return 0
    key_values(
        [
            ("version", f"{short(answer.judge_version)} with {answer.model}"),
            ("judged", f"{answer.evaluations} items, {answer.samples} times in all"),
            ("variance of one item", _figure(answer, "within_item_variance")),
            ("share that is noise", _figure(answer, "noise_share")),
            ("flip rate", _figure(answer, "flip_rate")),
            ("no figures because", answer.reason or None),
        ]
    )
    return 0


def selection_words(evaluation: evaluation_pb2.Evaluation) -> list[tuple[str, str]]:
    """Return what an evaluation says of trust, as keys and values; empty if nothing."""
    words = []
    if evaluation.HasField("calibrated_confidence"):
        fitted = evaluation.calibration
        interval = f"[{fitted.low_confidence:.2f}, {fitted.high_confidence:.2f}]"
        text = (
            f"{evaluation.calibrated_confidence:.2f} {interval}, {fitted.labels} labels"
        )
        words.append(("calibrated", text))
    if evaluation.HasField("consistency"):
        known = evaluation.consistency
        text = f"{known.n_samples} times, mean {known.mean:.2f} ± {known.stddev:.2f}"
        if known.HasField("flip_rate"):
            text += f", flip rate {known.flip_rate:.2f}"
        words.append(("judged", text))
    if evaluation.HasField("selection"):
        words += decision_words(evaluation.selection)
    return words


def decision_words(selection: evaluation_pb2.SelectionResult) -> list[tuple[str, str]]:
    """Return what to do with an answer and why, as keys and values."""
    accepted = selection.decision == evaluation_pb2.SelectionResult.DECISION_ACCEPTED
    return [
        ("decision", "accepted" if accepted else "needs review"),
        ("because", selection.reason),
    ]


def _figure(
    message: evaluation_pb2.ConfidenceCalibration
    | pb.GetJudgeConsistencyResponse
    | pb.GetJudgeReportResponse
    | pb.ReportPart,
    field: str,
) -> str | None:
    return labelled_figure(getattr(message, field))


def labelled_figure(figure: evaluation_pb2.LabelledFigure) -> str | None:
    """Return a figure with its interval; None where labels cannot say."""
    if not figure.HasField("value"):
        return None
    text = f"{figure.value:.3f}"
    if figure.HasField("low"):
        text += f" [{figure.low:.3f}, {figure.high:.3f}]"
    return text


def _name(args: argparse.Namespace) -> str:
    if args.version:
        return version_name(args.judge, args.version)
    return judge_name(args.judge)
