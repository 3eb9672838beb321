"""Reads pages the way a strict browser would: every start tag has its end, attributes are quoted, ids are unique."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser

from domzero.sdkgen.reference.site import HTML, Document

VOID = {"meta", "link", "br", "input"}


@dataclass
class Element:
    """An element of a page, with everything in it."""

    tag: str
    attributes: dict[str, str]
    parts: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text inside."""
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def id(self) -> str:
        return self.attributes.get("id", "")

    def walk(self) -> Iterator[Element]:
        """The element and every one inside it."""
        yield self
        for part in self.parts:
            if isinstance(part, Element):
                yield from part.walk()

    def all(self, tag: str) -> list[Element]:
        return [element for element in self.walk() if element.tag == tag]

    def children(self) -> list[Element]:
        return [part for part in self.parts if isinstance(part, Element)]


class Reader(HTMLParser):
    """Builds the tree. Raises `AssertionError` for tags that do not pair and for attributes given twice."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].parts.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data}")


def read(document: Document) -> Element:
    """The tree of one page."""
    text = document.content.decode()
    assert text.startswith("<!DOCTYPE html>\n<html")
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == [reader.root]
    return reader.root


def read_all(site: Mapping[str, Document]) -> dict[str, Element]:
    """The trees of all pages by name."""
    return {name: read(document) for name, document in site.items() if document.media_type == HTML}


def ids(page: Element) -> list[str]:
    return [element.id for element in page.walk() if element.id]


def by_id(page: Element, wanted: str) -> Element:
    """The one element with an id."""
    (found,) = [element for element in page.walk() if element.id == wanted]
    return found


def all_by_id(pages: Mapping[str, Element]) -> dict[tuple[str, str], Element]:
    """Everything that has an id, by page and id."""
    return {(name, element.id): element for name, page in pages.items() for element in page.walk() if element.id}


def anchors(pages: Mapping[str, Element], prefix: str) -> list[tuple[str, str]]:
    """Where ids of a kind are, over all pages: page and the id without its prefix."""
    return sorted(
        (name, anchor.removeprefix(prefix))
        for name, page in pages.items()
        for anchor in ids(page)
        if anchor.startswith(prefix)
    )


def broken_links(site: Mapping[str, Document], pages: Mapping[str, Element]) -> set[str]:
    """Links, images, scripts and forms that lead to nothing in this site; whatever lies outside counts too."""
    known = {name: set(ids(page)) for name, page in pages.items()}
    targets = {
        (name, element.attributes[attribute])
        for name, page in pages.items()
        for element in page.walk()
        for attribute in ("href", "src", "action")
        if attribute in element.attributes
    }
    return {f"{name}: {target}" for name, target in targets if not resolves(target, name, site, known)}


def resolves(target: str, base: str, site: Iterable[str], known: Mapping[str, set[str]]) -> bool:
    """Whether an address leads to a file of the site and, where it has a fragment, to an id there."""
    name, _, fragment = target.partition("#")
    name = name or base
    return name in site and (not fragment or fragment in known[name])
