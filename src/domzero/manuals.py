"""What a host serves at /docs/: the API reference as pages and, where its library is installed, as a PDF."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from domzero.datamodel.graph import GRAPH
from domzero.front.documents import Document, Documents
from domzero.host import process
from domzero.toolstack.unimplemented import UNIMPLEMENTED

PDF_TIME = 300.0
"""Seconds that a slow machine may take to make the PDF; a usual one takes a few."""


def manuals() -> Documents:
    """The documents, none of them made yet."""
    return Documents("/docs", _pages, {"reference.pdf": _pdf} if _can_make_pdf() else {})


def _can_make_pdf() -> bool:
    return find_spec("reportlab") is not None


def _pages() -> Mapping[str, Document]:
    # Most hosts are never asked for it, and start sooner without what makes it.
    from domzero.sdkgen.reference.site import build_site

    return build_site(GRAPH, version("domzero"), frozenset(UNIMPLEMENTED), with_pdf=_can_make_pdf())


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
