"""The PDF of the small and hostile datamodel."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from reportlab.platypus import Flowable, LongTable, Paragraph

from domzero.sdkgen.reference.pdf import build_pdf, story
from tests.sdkgen.toy import GRAPH, texts


def plain(flowable: Flowable) -> Iterator[str]:
    """The paragraphs of a part of the document, as text."""
    if isinstance(flowable, Paragraph):
        yield flowable.getPlainText()
    if isinstance(flowable, LongTable):
        yield from (text for row in flowable.__dict__["_cellvalues"] for cell in row for text in plain(cell))


@pytest.fixture(scope="module")
def document() -> bytes:
    return build_pdf(GRAPH, "<1.0>")


def test_it_has_an_outline(document: bytes) -> None:
    assert document.startswith(b"%PDF-")
    titles = [title.decode() for title in re.findall(rb"/Parent \d+ 0 R[^>]*?/Title \((.*?)\)", document)]
    assert sorted(titles) == ["Classes", "Conventions", "Enums", "Errors", "Roles", "Shelf", "book", "talk"]


def test_it_says_everything(document: bytes) -> None:
    said = [text for part in story(GRAPH, "<1.0>") for text in plain(part)]
    whole = "\n".join(said).replace('\\"', '"')
    assert [text for text in texts if text not in whole] == []
    for cls in GRAPH.classes.values():
        assert said.count(cls.name) == 1
        assert [field.name for field in cls.fields if field.name not in said] == []
    for method in GRAPH.methods.values():
        wanted = method.message.name if method.message.implicit else f" {method.name}("
        assert wanted in whole
    assert [said.count(name) for name in (*GRAPH.errors, *GRAPH.enums, *GRAPH.roles)] == [1] * 5


def test_the_same_model_gives_the_same_bytes(document: bytes) -> None:
    assert build_pdf(GRAPH, "<1.0>") == document
