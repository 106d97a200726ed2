"""`sidejudge juries`: judges that answer together, and what labels say of them."""

from __future__ import annotations

import argparse

from sidejudge.v1 import judge_service_pb2, jury_service_pb2
from sidejudge_server.benchmark.wire import evaluate_request, verdict_word
from sidejudge_server.cli.connection import Session, connect
from sidejudge_server.cli.evaluate import read_item
from sidejudge_server.cli.names import judge_name, short, version_reference
from sidejudge_server.cli.paging import collect_pages
from sidejudge_server.cli.printing import (
    key_values,
    number,
    print_message,
    print_table,
    say,
)
from sidejudge_server.cli.trust import decision_words, labelled_figure

__all__ = ["ask", "compare", "create", "list_all", "to_label"]

pb = jury_service_pb2


def create(args: argparse.Namespace) -> int:
    """Make a jury."""
    jury = pb.Jury(
        display_name=args.display_name,
        mode=pb.Jury.Mode.Value(f"MODE_{args.mode.upper()}"),
        audit_share=args.audit_share,
    )
    with connect(args) as session:
        jury.members.extend(_member(session, text) for text in args.member)
        made = session.client.juries.CreateJury(
            pb.CreateJuryRequest(jury_id=args.jury, jury=jury),
            timeout=session.timeout_s,
        ).jury
    if args.json:
        print_message(made)
    else:
        say(f"{made.name} has {len(made.members)} members")
    return 0


def list_all(args: argparse.Namespace) -> int:
    """List juries."""
    with connect(args) as session:
        page = collect_pages(
            session.client.juries.ListJuries,
            pb.ListJuriesRequest(),
            "juries",
            limit=None,
            timeout_s=session.timeout_s,
        )
    if args.json:
        print_message(page)
        return 0
    print_table(
        ["jury", "mode", "members", "audit share"],
        (
            (
                short(jury.name),
                _mode(jury),
                ", ".join(_member_words(member) for member in jury.members),
                f"{jury.audit_share:.0%}",
            )
            for jury in page.juries
        ),
    )
    return 0


def ask(args: argparse.Namespace) -> int:
    """Ask a jury about an item."""
    item = evaluate_request("judges/of-a-jury", read_item(args))
    request = pb.DeliberateRequest(
        jury=f"juries/{args.jury}",
        omit_reasoning=args.no_reasoning,
        subject=args.subject,
        group=args.group,
    )
    shape = item.WhichOneof("input")
    if shape is not None:
        getattr(request, shape).CopyFrom(getattr(item, shape))
    if args.target_agreement is not None:
        request.selection.target_agreement = args.target_agreement
        request.selection.assurance = args.assurance
    with connect(args) as session:
        said = session.client.juries.Deliberate(
            request, timeout=session.timeout_s
        ).deliberation
    if args.json:
        print_message(said)
        return 0
    asked = [answer for answer in said.answers if answer.evaluation]
    selection = decision_words(said.selection) if said.HasField("selection") else []
    key_values(
        [
            ("deliberation", short(said.name)),
            ("answer", _answer(said)),
            ("confidence", _optional(said, "confidence")),
            ("disagreement", _optional(said, "disagreement")),
            *selection,
            ("reasoning", said.reasoning or None),
        ]
    )
    print_table(
        ["member", "answer", "confidence", "weight", "evaluation"],
        (
            (
                _member_words(answer.member),
                _answer(answer),
                _optional(answer, "confidence") or "",
                f"{answer.weight:.2f}",
                short(answer.evaluation),
            )
            for answer in asked
        ),
    )
    option = "--score 0.5" if said.HasField("score") else "--verdict pass|fail"
    say(f"\nWrong? sidejudge feedback {short(asked[0].evaluation)} {option}")
    return 0


def to_label(args: argparse.Namespace) -> int:
    """List deliberations that were chosen by chance for people to label, newest first."""
    request = pb.ListDeliberationsRequest(jury=f"juries/{args.jury}", audited=True)
    with connect(args) as session:
        page = collect_pages(
            session.client.juries.ListDeliberations,
            request,
            "deliberations",
            limit=args.limit,
            timeout_s=session.timeout_s,
        )
    if args.json:
        print_message(page)
        return 0
    print_table(
        ["deliberation", "answer", "evaluation to label", "time"],
        (
            (
                short(said.name),
                _answer(said),
                short(next(a.evaluation for a in said.answers if a.evaluation)),
                f"{said.create_time.ToDatetime():%Y-%m-%d %H:%M:%S}",
            )
            for said in page.deliberations
        ),
    )
    return 0


def compare(args: argparse.Namespace) -> int:
    """Put a jury beside its members."""
    with connect(args) as session:
        found = session.client.juries.CompareJury(
            pb.CompareJuryRequest(name=f"juries/{args.jury}"),
            timeout=session.timeout_s,
        )
    if args.json:
        print_message(found)
        return 0
    say(f"{found.labels} labelled answers that were chosen by chance")
    if found.reason:
        say(found.reason)
    else:
        print_table(
            ["who", "agreement", "beside the best member"],
            (
                (
                    row.name,
                    labelled_figure(row.agreement) or "",
                    labelled_figure(row.difference) or "",
                )
                for row in found.rows
            ),
        )
    words = ", ".join(f"{weight:.2f}" for weight in found.weights)
    kind = "learned" if found.weights_learned else "equal"
    reason = f": {found.weights_reason}" if found.weights_reason else ""
    say(f"weights of the members: {words} ({kind}{reason})")
    return 0


def _member(session: Session, text: str) -> pb.JuryMember:
    """Read JUDGE[/VERSION][@MODEL]; without a version it is the deployed one now."""
    judge, _, model = text.partition("@")
    judge, _, version = judge.partition("/")
    if version:
        name = version_reference(f"{judge}/{version}")
    else:
        request = judge_service_pb2.GetJudgeRequest(name=judge_name(judge))
        found = session.client.judges.GetJudge(request, timeout=session.timeout_s)
        name = found.judge.deployed_version
    return pb.JuryMember(judge_version=name, model=model)


def _member_words(member: pb.JuryMember) -> str:
    model = f"@{member.model}" if member.model else ""
    return f"{short(member.judge_version)}{model}"


def _mode(jury: pb.Jury) -> str:
    return pb.Jury.Mode.Name(jury.mode).removeprefix("MODE_").lower()


def _answer(said: pb.Deliberation | pb.MemberAnswer) -> str:
    if said.HasField("score"):
        return number(said.score, digits=2)
    return verdict_word(said.verdict)


def _optional(said: pb.Deliberation | pb.MemberAnswer, field: str) -> str | None:
    return f"{getattr(said, field):.3f}" if said.HasField(field) else None  # type: ignore[arg-type] # a field of both
