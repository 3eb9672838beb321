"""The reference of the real datamodel."""

from __future__ import annotations

import re

import pytest

from domzero.datamodel.graph import GRAPH
from domzero.sdkgen.reference.site import Document, build_site
from tests.house.sources import ROOT
from tests.sdkgen import expectations
from tests.sdkgen.pages import Element, read_all

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site() -> dict[str, Document]:
    return build_site(GRAPH, "1.0")


@pytest.fixture(scope="module")
def pages(site: dict[str, Document]) -> dict[str, Element]:
    return read_all(site)


def test_pages_and_links(site: dict[str, Document], pages: dict[str, Element]) -> None:
    expectations.check_pages(site, pages)


def test_everything_is_there_once(pages: dict[str, Element]) -> None:
    expectations.check_complete(GRAPH, pages)


def test_fields(pages: dict[str, Element]) -> None:
    expectations.check_fields(GRAPH, pages)


def test_messages(pages: dict[str, Element]) -> None:
    expectations.check_messages(GRAPH, pages)


def test_the_search_index(site: dict[str, Document], pages: dict[str, Element]) -> None:
    expectations.check_index(GRAPH, site, pages)


def test_the_sample_is_the_readmes_first_session(site: dict[str, Document]) -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    assert site["first-session.py"].content.decode() == block.group(1)
