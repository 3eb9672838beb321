"""`domzero reference`."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.cli.main import main


@pytest.mark.slow
def test_it_writes_the_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new" / "reference"
    assert main(["reference", "--output", str(target)]) == 0
    assert capsys.readouterr().out == f"{target / 'index.html'}\n"
    assert {"index.html", "class-VM.html", "style.css", "search.js"} <= {path.name for path in target.iterdir()}


def test_it_says_why_it_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["reference", "--output", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err == f"domzero: {tmp_path / 'file'}: File exists\n"
