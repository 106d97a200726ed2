"""The commands and their options. Handlers are named, not imported: see `entry`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sidejudge_server import __version__
from sidejudge_server.cli.analytics_parser import add_analytics
from sidejudge_server.cli.experiments_parser import add_experiments
from sidejudge_server.cli.jury_parser import add_juries
from sidejudge_server.cli.monitor_parser import add_monitor
from sidejudge_server.cli.options import (
    add_author,
    add_budget,
    add_client,
    add_item,
    add_search,
    declare,
    group,
    key_value,
    named_text,
)
from sidejudge_server.cli.policy_parser import add_policy
from sidejudge_server.cli.review_parser import add_review
from sidejudge_server.cli.training_parser import add_training
from sidejudge_server.cli.trust_parser import add_target, add_trust

__all__ = ["build_parser"]

_VERDICTS = ["pass", "partial", "fail"]
_KINDS = ["rubric", "relevance", "faithfulness", "minimality", "safety", "custom"]
# Slow local models generate a few tokens a second.
_LM_TIMEOUT_S = 300.0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="sidejudge",
        description="Judges the work of AI agents and gets better from every correction.",
    )
    parser.add_argument(
        "--version", action="version", version=f"sidejudge {__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_server(commands)
    _add_evaluate(commands)
    _add_feedback(commands)
    add_training(commands)
    _add_optimize(commands)
    add_policy(commands)
    add_experiments(commands)
    add_monitor(commands)
    add_trust(commands)
    add_juries(commands)
    add_review(commands)
    add_analytics(commands)
    _add_judges(commands)
    _add_versions(commands)
    _add_models(commands)
    _add_bench(commands)
    return parser


def _add_server(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    demo = declare(
        commands,
        "demo",
        "demo.command:run",
        "Show the whole loop: judge, correct, optimise, deploy if better.",
    )
    demo.add_argument(
        "--lm",
        metavar="MODEL",
        help="model to judge with (default: the embedded model, pulled if needed)",
    )
    demo.add_argument("--judge", help="judge to optimise (default: faithfulness)")
    demo.add_argument(
        "--directory",
        type=Path,
        default=Path("sidejudge-demo"),
        help="where the demo keeps its database and log; made anew every time"
        " (default: %(default)s)",
    )
    demo.add_argument(
        "--keep",
        action=argparse.BooleanOptionalAction,
        help="leave the server running at the end (default: yes, unless CI is set)",
    )
    demo.add_argument(
        "--corrections",
        type=int,
        default=24,
        metavar="N",
        help="labelled items to judge and correct instead of importing them"
        " (default: %(default)s)",
    )
    demo.add_argument(
        "--examples",
        type=int,
        default=150,
        metavar="N",
        help="labelled items of the judge to use in all (default: %(default)s)",
    )
    demo.add_argument(
        "--minutes",
        type=float,
        default=10.0,
        metavar="N",
        help="time to fit the demo into: examples (100 or more) and trials (2 to 8,"
        " unless --trials or --auto says otherwise) are as many as this machine manages"
        " (default: %(default)s)",
    )
    demo.add_argument(
        "--stop", action="store_true", help="stop the server that a demo left running"
    )
    add_search(demo)
    demo.set_defaults(instruction_source="curated")

    serve = declare(commands, "serve", "serve:run", "Run the sidecar.")
    serve.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file with settings (default: SIDEJUDGE_CONFIG)",
    )
    serve.add_argument("--address", help="host:port or unix:/path to listen on")
    serve.add_argument("--database", metavar="FILE", help="database file")
    serve.add_argument(
        "--lm", metavar="MODEL", help="model that judges, such as openai/gpt-4o-mini"
    )
    serve.add_argument("--prompt-lm", metavar="MODEL", help="model that writes prompts")
    serve.add_argument(
        "--ready-file",
        type=Path,
        metavar="FILE",
        help="gets one JSON line with the address once calls are answered",
    )
    serve.add_argument("--log-level", choices=["debug", "info", "warning", "error"])

    health = declare(commands, "health", "health:run", "Ask whether a sidecar serves.")
    add_client(health, timeout_s=5.0)

    config = group(commands, "config", "Look at the settings.")
    show = declare(config, "show", "config:show", "Print the settings without secrets.")
    show.add_argument("--config", type=Path, metavar="FILE", help="TOML file")
    show.add_argument("--json", action="store_true", help="print JSON instead of TOML")


def _add_evaluate(commands: Any) -> None:  # noqa: ANN401 - as above
    evaluate = declare(commands, "evaluate", "evaluate:run", "Judge one item.")
    evaluate.add_argument("judge", metavar="JUDGE")
    add_item(evaluate)
    evaluate.add_argument(
        "--version", metavar="N", help="a version other than the deployed one"
    )
    evaluate.add_argument(
        "--no-reasoning", action="store_true", help="verdict only: faster and cheaper"
    )
    add_target(evaluate, default=None)
    evaluate.add_argument(
        "--samples", type=int, default=1, metavar="N", help="judge so many times"
    )
    evaluate.add_argument("--subject", default="", help="key for who or what is judged")
    evaluate.add_argument("--group", default="", help="keeps related items together")
    evaluate.add_argument(
        "--label", type=key_value, action="append", default=[], metavar="KEY=VALUE"
    )
    add_client(evaluate, timeout_s=_LM_TIMEOUT_S)

    evaluations = group(commands, "evaluations", "Look at what was judged.")
    listing = declare(
        evaluations,
        "list",
        "evaluate:list_evaluations",
        "List evaluations, newest first.",
    )
    listing.add_argument("--judge", help="only of this judge")
    listing.add_argument("--verdict", choices=_VERDICTS)
    listing.add_argument("--limit", type=int, default=20, help="(default: %(default)s)")
    add_client(listing)
    show = declare(
        evaluations, "show", "evaluate:show_evaluation", "Show one evaluation."
    )
    show.add_argument("evaluation", metavar="EVALUATION")
    add_client(show)


def _add_feedback(commands: Any) -> None:  # noqa: ANN401 - as above
    feedback = declare(
        commands, "feedback", "feedback:run", "Correct or confirm an evaluation."
    )
    feedback.add_argument("evaluation", metavar="EVALUATION")
    answer = feedback.add_mutually_exclusive_group(required=True)
    answer.add_argument("--verdict", choices=_VERDICTS, help="what it should have been")
    answer.add_argument("--score", type=float, help="what it should have been, 0 to 1")
    feedback.add_argument("--author", default="", help="who says so")
    feedback.add_argument(
        "--source", choices=["expert", "user", "downstream"], default="expert"
    )
    feedback.add_argument("--comment", default="", help="why")
    add_client(feedback)


def _add_optimize(commands: Any) -> None:  # noqa: ANN401 - as above
    optimize = declare(
        commands, "optimize", "optimize:run", "Look for a better version of a judge."
    )
    optimize.add_argument("judge", metavar="JUDGE")
    optimize.add_argument(
        "--estimate", action="store_true", help="only say what it would take"
    )
    optimize.add_argument(
        "--watch", action="store_true", help="show the progress until it ends"
    )
    optimize.add_argument(
        "--report",
        type=Path,
        metavar="FILE.html",
        help="write the run as one static HTML file when it has ended; implies --watch",
    )
    optimize.add_argument(
        "--deploy-if-better",
        action="store_true",
        help="deploy the result if the gate says it is better, or once it has proved itself "
        "in shadow",
    )
    add_search(optimize)
    add_budget(optimize)
    add_client(optimize)

    estimate = declare(
        commands,
        "estimate",
        "optimize:estimate",
        "Say what an optimization would take; starts nothing.",
    )
    estimate.add_argument("judge", metavar="JUDGE")
    add_search(estimate)
    add_budget(estimate)
    add_client(estimate)

    runs = group(commands, "optimizations", "Look at optimizations and stop them.")
    listing = declare(
        runs, "list", "optimizations:list_runs", "List runs, newest first."
    )
    listing.add_argument("--judge", help="only of this judge")
    listing.add_argument("--limit", type=int, default=20, help="(default: %(default)s)")
    add_client(listing)
    for name, summary in (
        ("show", "Show a run and its decision."),
        ("trials", "List the trials of a run."),
        ("watch", "Show the progress of a run until it ends."),
        ("cancel", "Stop a run; the best version so far is kept."),
    ):
        command = declare(runs, name, f"optimizations:{name}", summary)
        command.add_argument("optimization", metavar="OPTIMIZATION")
        add_client(command)
    resume = declare(
        runs,
        "resume",
        "optimize:resume",
        "Go on with a run that was cancelled, failed or ran out of its budget.",
    )
    resume.add_argument("optimization", metavar="OPTIMIZATION")
    resume.add_argument(
        "--watch", action="store_true", help="show the progress until it ends"
    )
    add_budget(resume)
    add_client(resume)
    logs = declare(runs, "logs", "run_events:logs", "Print the events of a run.")
    logs.add_argument("optimization", metavar="OPTIMIZATION")
    logs.add_argument(
        "--follow", action="store_true", help="go on until the run has ended"
    )
    add_client(logs)
    report = declare(
        runs, "report", "run_report:report", "Write a run as one static HTML file."
    )
    report.add_argument("optimization", metavar="OPTIMIZATION")
    report.add_argument("file", metavar="FILE.html")
    add_client(report, json=False)


def _add_judges(commands: Any) -> None:  # noqa: ANN401 - as above
    judges = group(
        commands, "judges", "Look at judges and change which version serves."
    )
    add_client(declare(judges, "list", "judges:list_judges", "List the judges."))
    for name, summary in (
        ("show", "Show a judge and the version that serves."),
        ("versions", "List the versions of a judge."),
        ("delete", "Take a judge out of service; what it judged stays readable."),
    ):
        command = declare(judges, name, f"judges:{name}", summary)
        command.add_argument("judge", metavar="JUDGE")
        add_client(command)
    version = declare(judges, "version", "judges:version", "Show one version.")
    version.add_argument("judge", metavar="JUDGE")
    version.add_argument("version", metavar="VERSION")
    add_client(version)

    create = declare(judges, "create", "judges:create", "Create a judge.")
    create.add_argument("judge", metavar="JUDGE", help="lowercase letters, digits, -")
    create.add_argument("--kind", choices=_KINDS, required=True)
    create.add_argument("--display-name", default="")
    create.add_argument("--description", default="")
    create.add_argument(
        "--label", type=key_value, action="append", default=[], metavar="KEY=VALUE"
    )
    create.add_argument("--instructions", default="", help="instructions of version 1")
    create.add_argument(
        "--instructions-file", type=Path, metavar="FILE", help="read them from a file"
    )
    create.add_argument(
        "--criterion",
        type=named_text,
        action="append",
        default=[],
        metavar="NAME=DESCRIPTION",
        help="rubric: default criteria; repeatable",
    )
    create.add_argument("--question", default="", help="custom: what is asked")
    create.add_argument(
        "--output", choices=["verdict", "score"], default="verdict", help="custom"
    )
    create.add_argument(
        "--input-field", action="append", default=[], metavar="NAME", help="custom"
    )
    create.add_argument("--binary", action="store_true", help="custom: never partial")
    add_client(create)

    deploy = declare(judges, "deploy", "judges:deploy", "Make a version serve.")
    deploy.add_argument("judge", metavar="JUDGE")
    deploy.add_argument("version", metavar="VERSION")
    add_author(deploy)
    add_client(deploy)
    rollback = declare(
        judges,
        "rollback",
        "judges:rollback",
        "Return to the version that served before.",
    )
    rollback.add_argument("judge", metavar="JUDGE")
    add_author(rollback)
    add_client(rollback)


def _add_versions(commands: Any) -> None:  # noqa: ANN401 - as above
    versions = group(commands, "versions", "Compare versions and carry them around.")
    diff = declare(
        versions, "diff", "versions:diff", "Show in what two versions differ."
    )
    diff.add_argument("left", metavar="A", help="JUDGE/NUMBER such as relevance/1")
    diff.add_argument("right", metavar="B", help="of the same or another judge")
    add_client(diff)
    exporting = declare(
        versions,
        "export",
        "versions:export_file",
        "Write a version as one JSON document.",
    )
    exporting.add_argument("version", metavar="JUDGE/NUMBER")
    exporting.add_argument("file", metavar="FILE|-")
    add_client(exporting, json=False)
    importing = declare(
        versions, "import", "versions:import_file", "Add the version of a document."
    )
    importing.add_argument("judge", metavar="JUDGE", help="of the same kind")
    importing.add_argument("file", metavar="FILE|-")
    add_client(importing)


def _add_models(commands: Any) -> None:  # noqa: ANN401 - as above
    models = group(commands, "models", "Embedded models; no sidecar needed.")
    listing = declare(models, "list", "models:list_models", "List the models.")
    listing.add_argument("--json", action="store_true", help="print JSON")
    for name, handler, summary in (
        ("pull", "pull", "Download a model and check it."),
        ("path", "path", "Print where a model lies."),
    ):
        command = declare(models, name, f"models:{handler}", summary)
        command.add_argument("model", metavar="NAME")
        if name == "pull":
            command.add_argument(
                "--from-file", type=Path, metavar="FILE", help="take it from a file"
            )


def _add_bench(commands: Any) -> None:  # noqa: ANN401 - as above
    bench = group(commands, "bench", "Measure a judge.")
    quality = declare(
        bench, "quality", "quality:run", "Compare a judge with labels that people gave."
    )
    quality.add_argument("--judge", required=True, metavar="JUDGE")
    quality.add_argument("--version", metavar="N", help="(default: the deployed one)")
    quality.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FILE.jsonl",
        help="labelled examples",
    )
    quality.add_argument("--limit", type=int, metavar="N", help="draw so many")
    quality.add_argument("--seed", type=int, default=9, help="(default: %(default)s)")
    quality.add_argument(
        "--max-words", type=int, metavar="N", help="leave out longer ones"
    )
    quality.add_argument(
        "--balanced", action="store_true", help="draw equally many of each label"
    )
    quality.add_argument(
        "--concurrency", type=int, default=1, metavar="N", help="(default: %(default)s)"
    )
    quality.add_argument(
        "--reasoning", action="store_true", help="ask for reasoning too: slower"
    )
    quality.add_argument(
        "--samples",
        type=int,
        default=1,
        metavar="N",
        help="judge each N times, in other orders, to see whether order matters",
    )
    quality.add_argument(
        "--out",
        type=Path,
        metavar="RESULT.json",
        help="write the figures here and each answer to RESULT.rows.jsonl; an interrupted"
        " run goes on from there",
    )
    add_client(quality, timeout_s=_LM_TIMEOUT_S)
    attacks = declare(
        bench, "attacks", "attacks:run", "Try to turn fails into passes by attacks."
    )
    attacks.add_argument(
        "--judge", action="append", metavar="JUDGE", help="repeatable; default: all"
    )
    attacks.add_argument(
        "--family", action="append", metavar="NAME", help="repeatable; default: all"
    )
    attacks.add_argument(
        "--skip-second-look",
        action="store_true",
        help="leave out the second look at what seems to speak to its judge",
    )
    attacks.add_argument(
        "--concurrency", type=int, default=1, metavar="N", help="(default: %(default)s)"
    )
    add_client(attacks, timeout_s=_LM_TIMEOUT_S)
