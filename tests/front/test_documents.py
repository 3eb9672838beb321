"""Documents that are kept in memory: made once, with tags and compressed where wanted."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from domzero.engine.calls import Origin
from domzero.front.documents import Documents
from domzero.front.routes import Request, Response, Routes
from domzero.wire.http import HttpError, parse_head
from tests.front.conftest import Serve
from tests.front.toy import read_response


@dataclass(frozen=True)
class Page:
    media_type: str
    content: bytes


PAGES = {"index.html": Page("text/html", b"<p>hello</p>" * 100), "a b.css": Page("text/css", b"p {}")}


@dataclass
class Maker:
    """Makes the pages, and counts; the first times it fails as often as told."""

    failures: int = 0
    made: int = 0
    routes: Routes = field(default_factory=Routes)

    def __post_init__(self) -> None:
        Documents("/docs", self.make).add_to(self.routes)

    def make(self) -> Mapping[str, Page]:
        self.made += 1
        if self.made <= self.failures:
            raise OSError("no memory left")
        return PAGES

    async def get(self, path: str, **headers: str) -> Response:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = parse_head(f"GET {path} HTTP/1.1\r\nhost: x\r\n{lines}\r\n".encode())
        page = self.routes.find("GET", head.path).page
        assert page is not None
        return await page(Request(head, Origin("here")))


def header(response: Response, name: str) -> str | None:
    return dict(response.headers).get(name)


async def test_they_are_made_once_and_served_by_name() -> None:
    maker = Maker()
    assert maker.made == 0
    index = await maker.get("/docs/")
    assert (index.status, index.body) == (200, PAGES["index.html"].content)
    assert header(index, "content-type") == "text/html"
    assert "default-src 'none'" in (header(index, "content-security-policy") or "")
    assert (await maker.get("/docs/index.html")).body == index.body
    assert (await maker.get("/docs/a%20b.css")).body == b"p {}"
    assert maker.made == 1


async def test_the_directory_leads_to_its_index() -> None:
    moved = await Maker().get("/docs")
    assert (moved.status, header(moved, "location")) == (302, "/docs/")


@pytest.mark.parametrize("path", ["/docs/none", "/docs/../docs/index.html", "/docs//index.html", "/docs/%00"])
async def test_nothing_else_is_there(path: str) -> None:
    with pytest.raises(HttpError, match="404"):
        await Maker().get(path)


async def test_what_a_browser_has_is_not_sent_again() -> None:
    maker = Maker()
    tag = header(await maker.get("/docs/"), "etag")
    assert tag is not None
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await maker.get("/docs/", if_none_match=known)
        assert (again.status, again.body, header(again, "etag")) == (304, b"", tag)
    for other in ('"other"', tag.strip('"'), (header(await maker.get("/docs/a%20b.css"), "etag") or "")):
        assert (await maker.get("/docs/", if_none_match=other)).status == 200


async def test_compressed_where_wanted() -> None:
    maker = Maker()
    plain = await maker.get("/docs/")
    for wanted in ("gzip", "br, gzip;q=0.5", "GZIP ; q=1"):
        small = await maker.get("/docs/", accept_encoding=wanted)
        assert header(small, "content-encoding") == "gzip"
        assert isinstance(small.body, bytes)
        assert gzip.decompress(small.body) == plain.body
        assert header(small, "etag") != header(plain, "etag")
    for refused in ("br", "gzip;q=0", "gzip; Q=0.000", "identity"):
        assert header(await maker.get("/docs/", accept_encoding=refused), "content-encoding") is None


async def test_a_document_apart_is_made_when_asked_for_and_once() -> None:
    made: list[str] = []

    async def manual() -> Page:
        made.append("manual")
        if len(made) == 1:
            raise OSError("no room")
        return Page("application/pdf", b"%PDF")

    def pages() -> Mapping[str, Page]:
        made.append("pages")
        return PAGES

    maker = Maker()
    maker.routes = Routes()
    Documents("/docs", pages, {"manual.pdf": manual}).add_to(maker.routes)
    with pytest.raises(OSError, match="no room"):
        await maker.get("/docs/manual.pdf")
    for _ in range(2):
        answer = await maker.get("/docs/manual.pdf")
        assert (answer.body, header(answer, "content-type")) == (b"%PDF", "application/pdf")
    await maker.get("/docs/")
    assert made == ["manual", "manual", "pages"]


async def test_a_failure_is_not_kept() -> None:
    maker = Maker(failures=1)
    with pytest.raises(OSError, match="no memory left"):
        await maker.get("/docs/")
    assert (await maker.get("/docs/")).status == 200


async def test_a_connection_goes_on_after_an_answer_without_a_body(serve: Serve) -> None:
    reader, writer = await (await serve(routes=Maker().routes)).plain()
    writer.write(b"GET /docs/ HTTP/1.1\r\nhost: x\r\n\r\n")
    status, headers, body = await read_response(reader)
    assert (status, body, headers["cache-control"]) == (200, PAGES["index.html"].content, "no-cache")
    for _ in range(2):
        writer.write(f"GET /docs/ HTTP/1.1\r\nhost: x\r\nif-none-match: {headers['etag']}\r\n\r\n".encode())
        status, unchanged, _ = await read_response(reader)
        assert (status, "content-length" in unchanged, unchanged["connection"]) == (304, False, "keep-alive")
    writer.close()
