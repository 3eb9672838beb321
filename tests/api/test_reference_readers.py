"""The reference that a host serves, as programs that nobody here wrote read it: xmllint, pdftotext; and its links."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest

from domzero.datamodel.graph import GRAPH
from tests.api.harness import InProcessHost
from tests.api.trust import unverified

pytestmark = pytest.mark.slow

NEWER = "header|footer|nav|main|section|article|aside|details|summary|figure|figcaption|time|mark"
DRAWN = "svg|g|path|rect|circle|line|text|title|defs|marker|polygon|polyline|tspan|a"
UNKNOWN = re.compile(rf"HTML parser error : Tag ({NEWER}|{DRAWN}) invalid$")
"""libxml2 knows HTML 4: it says so of the elements that came later, and reads on."""


class Names(HTMLParser):
    """What a page refers to, and what can be referred to in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value is not None:
                self.links.append(value)
            if name == "id" and value is not None:
                self.ids.append(value)


@pytest.fixture(scope="module")
def served(host: InProcessHost) -> dict[str, tuple[str, bytes]]:
    """Everything that is reached from /docs/ by links, and what scripts load: by path, its type and content."""
    connection = http.client.HTTPSConnection(host.url.removeprefix("https://"), context=unverified(), timeout=100)
    found: dict[str, tuple[str, bytes]] = {}
    wanted = ["/docs/", "/docs/search-index.js"]
    while wanted:
        path = wanted.pop()
        if path in found:
            continue
        connection.request("GET", path)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, f"{path} is linked and answers {answer.status}"
        found[path] = (answer.headers["Content-Type"], content)
        if found[path][0].startswith("text/html"):
            targets = (urldefrag(urljoin(path, link))[0] for link in Names(content.decode()).links)
            wanted += [target for target in targets if target.startswith("/docs/")]
    connection.close()
    return found


def test_every_link_leads_to_something(served: dict[str, tuple[str, bytes]]) -> None:
    names = {path: Names(text.decode()) for path, (kind, text) in served.items() if kind.startswith("text/html")}
    assert {f"/docs/class-{cls}.html" for cls in GRAPH.classes} < names.keys()
    assert {"/docs/diagram.html", "/docs/errors.html", "/docs/samples.html"} < names.keys()
    assert {"/docs/first-session.py", "/docs/first-call.sh", "/docs/reference.pdf"} < served.keys()
    for path, page in names.items():
        assert len(set(page.ids)) == len(page.ids), path
        for link in page.links:
            target, fragment = urldefrag(urljoin(path, link))
            assert target.startswith(("/docs/", "https://")), f"{path} leads to {target}"
            if fragment:
                assert unquote(fragment) in names[target].ids, f"{path} leads to {target}#{fragment}"


def test_nothing_is_fetched_from_elsewhere(served: dict[str, tuple[str, bytes]]) -> None:
    """A host may have no way to the Internet, and its operators' browsers should tell nobody what they read."""
    for path, (kind, text) in served.items():
        if kind.startswith(("text/html", "text/css")):
            assert not re.search(rb"""(?:src|srcset)=["'](?:https?:)?//|url\(["']?(?:https?:)?//|@import""", text), path
            assert not re.search(rb"""<link[^>]*href=["'](?:https?:)?//""", text), path


@pytest.mark.skipif(shutil.which("xmllint") is None, reason="needs xmllint")
def test_xmllint_finds_pages_well_formed(served: dict[str, tuple[str, bytes]], tmp_path: Path) -> None:
    pages = []
    for path, (kind, text) in served.items():
        if kind.startswith("text/html"):
            pages.append(tmp_path / (path.rsplit("/", 1)[1] or "start.html"))
            pages[-1].write_bytes(text)
    done = subprocess.run(
        ["xmllint", "--html", "--noout", *pages], capture_output=True, text=True, errors="replace", timeout=100
    )
    complaints = [line for line in done.stderr.splitlines() if "parser error" in line and not UNKNOWN.search(line)]
    assert complaints == []


@pytest.mark.skipif(shutil.which("xmllint") is None, reason="needs xmllint")
def test_the_drawing_is_a_sound_document(served: dict[str, tuple[str, bytes]], tmp_path: Path) -> None:
    """Taken out of its page it is XML, with a box for each class."""
    page = served["/docs/diagram.html"][1].decode()
    drawing = page[page.index("<svg") : page.index("</svg>") + len("</svg>")]
    (tmp_path / "diagram.svg").write_text(drawing)
    ask = ["xmllint", "--xpath", "count(//*[local-name()='rect'])", str(tmp_path / "diagram.svg")]
    done = subprocess.run(ask, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == len(GRAPH.classes)


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs poppler-utils")
def test_the_pdf_can_be_read(served: dict[str, tuple[str, bytes]], tmp_path: Path) -> None:
    file = tmp_path / "reference.pdf"
    file.write_bytes(served["/docs/reference.pdf"][1])
    done = subprocess.run(["pdftotext", "-raw", str(file), "-"], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    said = re.sub(r"\s+", "", done.stdout)
    for cls in GRAPH.classes.values():
        assert cls.name in said
    missing = [code for code in GRAPH.errors if code not in said]
    assert missing == []
    explicit = [method.name for method in GRAPH.methods.values() if method.message.implicit is None]
    assert [name for name in explicit if name not in said and name.partition(".")[2] not in said] == []
    assert done.stdout.count("\f") > 50


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_search_finds(served: dict[str, tuple[str, bytes]], tmp_path: Path) -> None:
    for name in ("search.js", "search-index.js"):
        (tmp_path / name).write_bytes(served[f"/docs/{name}"][1])
    queries = ["VM.start", "start", "MAC_INVALID", "snapshot revert", "no such thing anywhere", " "]
    done = subprocess.run(
        ["node", str(Path(__file__).with_name("search_page.js")), str(tmp_path), *queries],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    firsts = [answer["found"][:1] for answer in answers]
    assert firsts[0] == ["class-VM.html#message-start"]
    assert "class-VM.html#message-start" in answers[1]["found"]
    assert firsts[2] == ["errors.html#error-MAC_INVALID"]
    assert "class-VM.html#message-revert" in answers[3]["found"]
    assert (answers[4]["count"], answers[4]["found"], answers[4]["hidden"]) == ("0 found", [], True)
    assert (answers[5]["count"], answers[5]["hidden"]) == ("", True)
    names = {path: Names(text.decode()).ids for path, (kind, text) in served.items() if kind.startswith("text/html")}
    for link in (link for answer in answers for link in answer["found"]):
        target, fragment = urldefrag(f"/docs/{link}")
        assert not fragment or unquote(fragment) in names[target], link
