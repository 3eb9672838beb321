"""Documents say what is true: links lead somewhere, commands and settings exist, tables are those of the code."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from domzero.host.hypervisor.sim.faults import FAULTS, VERBS
from domzero.settings import SETTINGS, documentation
from tests.house.sources import ROOT, documents, everything

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
DOCUMENT = re.compile(r"\bdocs/[\w/.-]+\.md\b")
SCRIPT = re.compile(r"\bscript/[a-z_-]+\b")
FLAG = re.compile(r"(?:script/server|domzero serve)((?:[^`\n]|\\\n)*)")

BESIDE_SETTINGS = {"--config", "--help"}


def headings(document: Path) -> set[str]:
    """The anchors of a document's headings, as forges make them."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    dead = []
    for target in LINK.findall(document.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path) if path else document
        if not file.exists() or (anchor and anchor not in headings(file)):
            dead.append(target)
    assert not dead


def test_documents_that_the_code_names_exist() -> None:
    named = {(module.where, path) for module in everything() for path in DOCUMENT.findall(module.text)}
    assert [f"{where}: {path}" for where, path in sorted(named) if not (ROOT / path).exists()] == []
    assert named


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_scripts_and_flags_that_are_named_exist(document: Path) -> None:
    text = document.read_text()
    missing = [name for name in set(SCRIPT.findall(text)) if not os.access(ROOT / name, os.X_OK)]
    assert not missing
    known = {setting.flag for setting in SETTINGS} | BESIDE_SETTINGS
    named = {flag for arguments in FLAG.findall(text) for flag in re.findall(r"--[a-z-]+", arguments)}
    assert named <= known


def test_the_simulators_document_has_every_fault() -> None:
    text = (ROOT / "docs/simulator.md").read_text()
    missing = [row.key for row in FAULTS if f"| `sim:{row.key}` | {row.kind.value} | {row.meaning} |" not in text]
    assert not missing
    assert [verb for verb in VERBS if f"`{verb}`" not in text] == []


def test_the_settings_document_is_the_table_of_the_code() -> None:
    assert documentation() in (ROOT / "docs/settings.md").read_text()


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"])
def test_what_strangers_look_for_is_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 500


def test_decisions_have_a_number_of_their_own_and_a_title_with_it() -> None:
    titles = {path.name[:4]: path.read_text().partition("\n")[0] for path in (ROOT / "docs/decisions").glob("*.md")}
    assert len(titles) == len(list((ROOT / "docs/decisions").glob("*.md")))
    assert all(title.startswith(f"# {number}: ") for number, title in titles.items()), titles
