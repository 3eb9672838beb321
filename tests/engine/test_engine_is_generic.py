"""The engine knows sessions, users, roles, tasks and events, and nothing of what calls are about."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import domzero.engine
from domzero.datamodel.graph import GRAPH

OWN = {"session", "subject", "user", "role", "task", "event"}
WORDS_TOO = {"auth", "host", "message", "feature", "network", "pool", "secret", "certificate", "console", "blob"}
"""Classes whose names are everyday words, which comments may use."""
SOURCES = sorted(Path(domzero.engine.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_code_names_no_class_but_its_own(source: Path) -> None:
    code = re.sub(r'""".*?"""|#[^\n]*', "", source.read_text(), flags=re.DOTALL)
    quoted = set(re.findall(r'"([A-Za-z_]+)(?:\.[a-z_]+)?"', code))
    assert quoted & (GRAPH.classes.keys() - OWN - WORDS_TOO) == set()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_it_imports_only_the_vocabulary(source: Path) -> None:
    rooms = set(re.findall(r"^(?:from|import) domzero\.(\w+)", source.read_text(), flags=re.MULTILINE))
    assert rooms <= {"engine", "idl", "durable"}
