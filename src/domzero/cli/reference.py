"""`domzero reference`: writes the API reference into a directory, to be read or served without a host."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="where to; made if it is not there")


def run(arguments: argparse.Namespace) -> int:
    """Write all files, over older ones of the same names. Returns the exit code."""
    # No other command needs the whole datamodel.
    from domzero.datamodel.graph import GRAPH
    from domzero.sdkgen.reference.site import build_site

    directory: Path = arguments.output
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, document in build_site(GRAPH, version("domzero")).items():
            (directory / name).write_bytes(document.content)
    except OSError as error:
        print(f"domzero: {error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    print(directory / "index.html")  # noqa: T201
    return 0
