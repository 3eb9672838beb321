"""The `domzero` command."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from domzero import paths
from domzero.cli import bundle, reference, simulator, users
from domzero.settings import SettingsError, add_arguments, resolve


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="domzero", description="The XenServer management API on any Linux machine.")
    top.add_argument("--version", action="version", version=f"domzero {version('domzero')}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    serve = commands.add_parser("serve", help="turn this machine into a XenServer-compatible host")
    add_arguments(serve)
    serve.set_defaults(run=_serve)
    user = commands.add_parser("user", help="manage the people who may log in besides root")
    user.set_defaults(run=lambda arguments: users.run(arguments, _socket(arguments)))
    users.add_arguments(user)
    simulated = commands.add_parser("simulator", help="move the time of a simulated host, and let single steps happen")
    simulated.set_defaults(run=lambda arguments: simulator.run(arguments, _socket(arguments)))
    simulator.add_arguments(simulated)
    written = commands.add_parser("reference", help="write the API reference as pages for a browser")
    written.set_defaults(run=reference.run)
    reference.add_arguments(written)
    bundled = commands.add_parser("bundle", help="make, sign and check updates of domzero")
    bundled.set_defaults(run=bundle.run)
    bundle.add_arguments(bundled)
    for local in (user, simulated):
        local.add_argument("--socket", metavar="PATH", type=Path, help="the daemon's Unix socket")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, 1 for a failure that was told on standard error, or ends with 2 for wrong usage."""
    chosen = parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = chosen.run
    return run(chosen)


def _serve(arguments: argparse.Namespace) -> int:
    try:
        settings = resolve(arguments)
    except SettingsError as error:
        print(f"domzero: {error}", file=sys.stderr)  # noqa: T201
        return 2
    # What is made during a start stays: looking for garbage in it costs time and finds none. The daemon collects
    # again once it serves.
    gc.disable()
    # The daemon brings the whole toolstack along; no other command, and no mistake, should wait for that.
    from domzero.service import serve

    return serve(settings)


def _socket(arguments: argparse.Namespace) -> Path:
    return Path(arguments.socket or paths.socket_path(paths.runtime_dir(paths.state_dir())))


if __name__ == "__main__":
    sys.exit(main())
