"""`GET /`: a page for people who come with a browser, and the `xe` client for taking along."""

from __future__ import annotations

import html
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from domzero.front.documents import Document, Documents
from domzero.front.pages import HTML
from domzero.front.routes import Request, Response, Routes

DOWNLOADS = "/download"
CLIENT = "xe"
PACKAGE = "domzero"

SHEBANG = b"#!/usr/bin/env python3\n"
ENTRY = "import sys\n\nfrom domzero.client.xe import main\n\nsys.exit(main())\n"


@dataclass(frozen=True, slots=True)
class Client:
    """The client as one file that Python runs (its documentation's “zipapp”)."""

    content: bytes
    media_type: str = "application/octet-stream"


class Welcome:
    """The page, and the client made of these modules (full names, in files below `root`)."""

    def __init__(self, title: str, root: Path, modules: tuple[str, ...]) -> None:
        self._page = _page(title)
        self._root = root
        self._modules = modules

    def add_to(self, routes: Routes) -> None:
        """Serve both."""
        routes.page("GET", "/", self._answer, alone=True)
        Documents(DOWNLOADS, self._downloads).add_to(routes)

    async def _answer(self, _request: Request) -> Response:
        return Response(200, self._page, (HTML, ("x-content-type-options", "nosniff")))

    def _downloads(self) -> Mapping[str, Document]:
        return {CLIENT: Client(bundled(self._root, self._modules))}


def bundled(root: Path, modules: tuple[str, ...]) -> bytes:
    """One file with the modules, those of the packages they are in, and a start that runs the client."""
    names = dict.fromkeys(name for module in modules for name in (*_packages(module), f"{module.replace('.', '/')}.py"))
    packed = io.BytesIO()
    packed.write(SHEBANG)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        archive.writestr("__main__.py", ENTRY)
        release = version(PACKAGE)  # by which the client tells what it is
        metadata = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {release}\n"
        archive.writestr(f"{PACKAGE}-{release}.dist-info/METADATA", metadata)
        for name in names:
            archive.write(root / name, name)
    return packed.getvalue()


def _packages(module: str) -> list[str]:
    parts = module.split(".")[:-1]
    return [f"{'/'.join(parts[: at + 1])}/__init__.py" for at in range(len(parts))]


def _page(title: str) -> bytes:
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title></head><body>"
        f"<h1>{html.escape(title)}</h1><p>This machine is managed by the XenServer API.</p><ul>"
        "<li><a href='/docs/'>The API's reference</a></li>"
        f"<li><a href='{DOWNLOADS}/{CLIENT}'>The command line client <code>xe</code></a>, for Python 3.11 or later: "
        "save it, make it executable, and run <code>./xe help -s ADDRESS -u NAME</code></li>"
        "</ul></body></html>\n"
    ).encode()
