"""`domzero user list|add|remove`: local people with one of the six roles. Needs the daemon, over its Unix socket."""

from __future__ import annotations

import argparse
import getpass
import signal
import sys
from pathlib import Path

from domzero.client.local import LocalError, request
from domzero.datamodel.roles import ROLES

PATH = "/local/users"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="show root and the local users")
    add = actions.add_parser("add", help="add a user, or give one a new role and password")
    add.add_argument("name")
    add.add_argument("--role", required=True, choices=[role.name for role in ROLES])
    add.add_argument("--fullname", default="")
    add.add_argument("--password-file", metavar="FILE", type=Path, help="its first line; asked for by default")
    remove = actions.add_parser("remove", help="remove a user and end the user's sessions")
    remove.add_argument("name")


def run(arguments: argparse.Namespace, socket: Path) -> int:
    """Carry the sub-command out and show the users. Returns the exit code."""
    try:
        answer = _ask(arguments, socket)
    except LocalError as error:
        print(f"domzero: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    for user in answer["users"]:
        print(f"{_shown(user['name']):20} {user['role']:16} {_shown(user['fullname'])}".rstrip())  # noqa: T201
    return 0


def _ask(arguments: argparse.Namespace, socket: Path) -> dict[str, list[dict[str, str]]]:
    match arguments.action:
        case "list":
            answer = request(socket, "GET", PATH)
        case "add":
            fields = {"name": arguments.name, "role": arguments.role, "fullname": arguments.fullname}
            answer = request(socket, "POST", PATH, {**fields, "password": _password(arguments.password_file)})
        case _:
            answer = request(socket, "DELETE", PATH, {"name": arguments.name})
    return dict(answer)


def _password(file: Path | None) -> str:
    """The first line of the file, or what the person types twice. Raises `LocalError`."""
    try:
        password = _typed() if file is None else "".join(file.read_text("utf-8").splitlines()[:1])
    except OSError as error:
        raise LocalError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LocalError(f"{file} is no text: {error.reason}") from error
    except EOFError as error:
        raise LocalError("no password was given") from error
    if not password:
        raise LocalError("the password is empty")
    return password


def _typed() -> str:
    password = getpass.getpass("New password: ")
    if getpass.getpass("Once more: ") != password:
        raise LocalError("the two passwords differ")
    return password


def _shown(text: str) -> str:
    """Fit for a terminal and for one line, whatever somebody was called."""
    return text if text.isprintable() else repr(text)[1:-1]
