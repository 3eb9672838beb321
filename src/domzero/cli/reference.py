"""`domzero reference`: writes the API reference into a directory, to be read or served without a host."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="where to; made if it is not there")
    parser.add_argument("--format", choices=("html", "pdf"), default="html", help="pages (the default), or one PDF")


def run(arguments: argparse.Namespace) -> int:
    """Write all files, over older ones of the same names. Returns the exit code."""
    directory: Path = arguments.output
    try:
        directory.mkdir(parents=True, exist_ok=True)
        files = _files(arguments.format)
        for name, content in files.items():
            (directory / name).write_bytes(content)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}")
    print(directory / next(iter(files)))  # noqa: T201
    return 0


def _files(kind: str) -> Mapping[str, bytes]:
    """What is to be written, the file to begin with first."""
    # No other command needs the whole datamodel, and the PDF's library only this one form.
    from domzero.datamodel.graph import GRAPH
    from domzero.sdkgen.reference import links

    if kind == "pdf":
        from domzero.sdkgen.reference.pdf import build_pdf

        return {links.PDF: build_pdf(GRAPH, version("domzero"))}
    from domzero.sdkgen.reference.site import build_site

    site = build_site(GRAPH, version("domzero"))
    return {name: site[name].content for name in (links.INDEX, *site)}


def _fail(why: str) -> int:
    print(f"domzero: {why}", file=sys.stderr)  # noqa: T201
    return 1
