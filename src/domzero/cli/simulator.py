"""`domzero simulator show|advance|step`: time and single steps of a simulated host, over its Unix socket."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from domzero.client.local import LocalError, request

PATH = "/local/simulator"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("show", help="show the host's time and what waits for a step")
    advance = actions.add_parser("advance", help="set the host's clock forward")
    advance.add_argument("seconds", type=float)
    step = actions.add_parser("step", help="let what has waited longest go on")
    step.add_argument("steps", metavar="COUNT", type=int, nargs="?", default=1)


def run(arguments: argparse.Namespace, socket: Path) -> int:
    """Carry the sub-command out and show the state. Returns the exit code."""
    try:
        answer = _ask(arguments, socket)
    except LocalError as error:
        print(f"domzero: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(answer["now"])  # noqa: T201
    for word in ("stepped", "waiting"):
        for verb in answer[word]:
            print(f"{word} {verb['verb']} of domain {verb['domid']}")  # noqa: T201
    return 0


def _ask(arguments: argparse.Namespace, socket: Path) -> dict[str, Any]:
    match arguments.action:
        case "show":
            answer = request(socket, "GET", PATH)
        case "advance":
            answer = request(socket, "POST", PATH, {"advance": arguments.seconds})
        case _:
            answer = request(socket, "POST", PATH, {"steps": arguments.steps})
    return dict(answer)
