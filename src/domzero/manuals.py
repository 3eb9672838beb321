"""What a host serves to people: a first page, the client `xe`, and at /docs/ the API reference, as pages and PDF."""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from domzero.datamodel.graph import GRAPH
from domzero.front.documents import Document, Documents
from domzero.front.routes import Routes
from domzero.front.welcome import Welcome
from domzero.host import process
from domzero.toolstack.unimplemented import UNIMPLEMENTED

PDF_TIME = 300.0
"""Seconds that a slow machine may take to make the PDF; a usual one takes a few."""


CLIENT = (
    "domzero.client.xe", "domzero.client.xe_connection", "domzero.client.xe_options", "domzero.client.xe_transfer",
    "domzero.wire.cli",
)  # fmt: skip
"""The modules of `xe`, which needs nothing else."""


@dataclass(frozen=True, slots=True)
class Manuals:
    """All of them."""

    parts: tuple[Documents | Welcome, ...]

    def add_to(self, routes: Routes) -> None:
        """Serve them."""
        for part in self.parts:
            part.add_to(routes)


def manuals() -> Manuals:
    """The documents, none of them made yet."""
    welcome = Welcome(f"domzero on {socket.gethostname()}", Path(__file__).parents[1], CLIENT)
    return Manuals((welcome, _reference()))


def _reference() -> Documents:
    return Documents("/docs", _pages, {"reference.pdf": _pdf})


def _pages() -> Mapping[str, Document]:
    # Most hosts are never asked for it, and start sooner without what makes it.
    from domzero.sdkgen.reference.site import build_site

    return build_site(GRAPH, version("domzero"), frozenset(UNIMPLEMENTED), with_pdf=True)


async def _pdf() -> Document:
    """The PDF, made by a process of its own: it takes seconds and memory that calls should not wait for.

    Raises `ProcessError`.
    """
    from domzero.sdkgen.reference import links, site

    with tempfile.TemporaryDirectory(prefix="domzero-reference-") as directory:
        command = (sys.executable, "-P", "-m", "domzero.cli.main", "reference", "--format", "pdf")
        await process.run([*command, "--output", directory], timeout=PDF_TIME)
        content = await asyncio.to_thread((Path(directory) / links.PDF).read_bytes)
    return site.Document(site.PDF, content)
