"""The reference of a small and hostile datamodel: complete, well-formed, and nothing but text where texts are."""

from __future__ import annotations

import pytest

from domzero.sdkgen.reference.site import Document, build_site
from tests.sdkgen import expectations
from tests.sdkgen.pages import Element, by_id, read_all
from tests.sdkgen.toy import BOOK, GRAPH, SHELF, texts


@pytest.fixture(scope="module")
def site() -> dict[str, Document]:
    return build_site(GRAPH, "<1.0>", frozenset({"Shelf.count"}))


@pytest.fixture(scope="module")
def pages(site: dict[str, Document]) -> dict[str, Element]:
    return read_all(site)


def test_pages_and_links(site: dict[str, Document], pages: dict[str, Element]) -> None:
    expectations.check_pages(site, pages)


def test_everything_is_there_once(pages: dict[str, Element]) -> None:
    expectations.check_complete(GRAPH, pages)


def test_fields_and_messages(pages: dict[str, Element]) -> None:
    expectations.check_fields(GRAPH, pages)
    expectations.check_messages(GRAPH, pages)


def test_the_search_index(site: dict[str, Document], pages: dict[str, Element]) -> None:
    expectations.check_index(GRAPH, site, pages)


def test_hostile_texts_stay_texts(pages: dict[str, Element]) -> None:
    everything = "\n".join(page.text for page in pages.values()).replace('\\"', '"')
    assert [text for text in texts if text not in everything] == []
    for page in pages.values():
        assert page.all("img") == []
        assert [script.attributes.get("src") for script in page.all("script")] == ["search.js"]
        assert [script.text for script in page.all("script")] == [""]
        assert {name for element in page.walk() for name in element.attributes if name.startswith("on")} == set()


def test_characters_that_no_page_may_contain_are_replaced(pages: dict[str, Element]) -> None:
    assert "\ufffd\ufffd\ufffd \ufffd." in by_id(pages["class-talk.html"], "message-say").text


def test_defaults_and_ages(pages: dict[str, Element]) -> None:
    size = by_id(pages["class-Shelf.html"], "field-size").children()
    assert (size[3].text, size[5].text) == ("3", "since one")
    assert by_id(pages["class-Shelf.html"], "field-uuid").children()[3].text == "–"
    notes = by_id(pages["class-book.html"], "field-notes").children()
    assert (notes[3].text, notes[5].text) == ("{}", f"since one removed in {BOOK.fields[-1].removed}")
    assert f"deprecated in {SHELF.messages[0].deprecated}" in by_id(pages["class-Shelf.html"], "message-tidy").text


def test_what_is_not_carried_out_says_so(pages: dict[str, Element]) -> None:
    shelf = pages["class-Shelf.html"]
    assert "NOT_IMPLEMENTED" in by_id(shelf, "message-count").text
    assert "NOT_IMPLEMENTED" not in by_id(shelf, "message-tidy").text


def test_signatures(pages: dict[str, Element]) -> None:
    shelf = pages["class-Shelf.html"]
    tidy = "book record option Shelf.tidy(session ref session_id, Shelf ref self, (string → manner) map how)"
    assert tidy in by_id(shelf, "message-tidy").text
    assert "int Shelf.count()" in by_id(shelf, "message-count").text


def test_errors_name_their_messages(pages: dict[str, Element]) -> None:
    errors = pages["errors.html"]
    assert by_id(errors, "error-TOO_BIG").children()[-1].text == "Shelf.tidy"
    assert by_id(errors, "error-NEVER_NAMED").children()[-1].text == "–"


def test_the_diagram_has_a_box_for_each_class_and_a_line_for_each_pair(pages: dict[str, Element]) -> None:
    (drawing,) = pages["diagram.html"].all("svg")
    assert sorted(label.text for label in drawing.all("text")) == ["Shelf", "book", "talk"]
    lines = [group.all("title")[0].text for group in drawing.all("g")]
    assert lines == ["book → Shelf: shelf"]
    assert ["book.sequel", "book"] in [
        [cell.text for cell in cells] for cells in expectations.rows(by_id(pages["class-book.html"], "relations"))
    ]


def test_the_same_model_gives_the_same_bytes(site: dict[str, Document]) -> None:
    assert build_site(GRAPH, "<1.0>", frozenset({"Shelf.count"})) == site
