"""The agent runs in guests whose Python is 3.6, and has nothing but its standard library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from guest.domzero_guest.__main__ import main

from guest import domzero_guest

SOURCES = sorted(Path(domzero_guest.__file__).parent.glob("*.py"))
LIBRARY = frozenset(
    ("argparse", "configparser", "errno", "json", "logging", "os", "re", "select", "signal", "socket", "stat", "struct",
     "subprocess", "sys", "time", "typing")
)  # fmt: skip
"""Modules of which no more is used than Python 3.6 has."""
NEWER = {"capture_output", "text", "removeprefix", "removesuffix", "fromisoformat", "annotations", "unlink_missing"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_syntax_is_old_enough(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 6))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= LIBRARY
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module in LIBRARY
        elif isinstance(node, ast.keyword) and node.arg in ("capture_output", "text"):
            pytest.fail(f"line {node.value.lineno}: {node.arg}")
        elif isinstance(node, ast.Attribute):
            assert node.attr not in NEWER - {"text"}, node.lineno


def test_it_starts_on_its_own() -> None:
    directory = Path(domzero_guest.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; sys.path.insert(0, sys.argv[1]); sys.argv[1:] = ['--version']\n"
         "from domzero_guest.__main__ import main; main()", str(directory)],
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.decode().strip() == domzero_guest.VERSION


def test_settings_that_make_no_sense_end_it_for_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "conf").write_text("[agent]\nremote-desktop = telnet\n")
    assert main(["--config", str(tmp_path / "conf")]) == 2
    assert "remote-desktop is one of" in caplog.text
