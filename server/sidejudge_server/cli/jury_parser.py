"""The options of `sidejudge juries`."""

from __future__ import annotations

from typing import Any

from sidejudge_server.cli.options import add_client, add_item, declare, group
from sidejudge_server.cli.trust_parser import add_target

__all__ = ["add_juries"]

# Members of a cascade answer one after the other.
_LM_TIMEOUT_S = 300.0


def add_juries(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Add `sidejudge juries` with its actions."""
    juries = group(commands, "juries", "Judges that answer together.")
    create = declare(juries, "create", "juries:create", "Make a jury.")
    create.add_argument("jury", help="id of the jury")
    create.add_argument("--mode", required=True, choices=["vote", "average", "cascade"])
    create.add_argument(
        "--member",
        action="append",
        required=True,
        metavar="JUDGE[/VERSION][@MODEL]",
        help="a judge, its version (default: the deployed one) and a further model of the"
        " server's configuration; repeat it, in a cascade the cheapest first",
    )
    create.add_argument(
        "--audit-share",
        type=float,
        metavar="SHARE",
        help="share of the answers for people to label (default: 0.15)",
    )
    create.add_argument("--display-name", default="", metavar="TEXT")
    add_client(create)
    add_client(declare(juries, "list", "juries:list_all", "List juries."))
    ask = declare(juries, "ask", "juries:ask", "Ask a jury about an item.")
    ask.add_argument("jury", help="id of the jury")
    add_item(ask)
    ask.add_argument("--no-reasoning", action="store_true", help="verdict only; faster")
    ask.add_argument("--subject", default="", help="who or what is judged")
    ask.add_argument("--group", default="", help="what belongs together")
    add_target(ask, default=None)
    add_client(ask, timeout_s=_LM_TIMEOUT_S)
    to_label = declare(
        juries, "to-label", "juries:to_label", "List what people should label."
    )
    to_label.add_argument("jury", help="id of the jury")
    to_label.add_argument("--limit", type=int, default=20, metavar="N")
    add_client(to_label)
    compare = declare(
        juries, "compare", "juries:compare", "Put a jury beside its members."
    )
    compare.add_argument("jury", help="id of the jury")
    add_client(compare)
