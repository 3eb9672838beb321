"""The manual page: well made, and of all options."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from domzero.client.xe_options import FLAGS, VALUED
from tests.xe.terminal import ROOT

PAGE = ROOT / "packaging" / "xe.1"


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_finds_nothing_to_say_against_it() -> None:
    done = subprocess.run(
        ["groff", "-ww", "-man", "-Tutf8", "-rLL=78n", str(PAGE)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout)
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "FILES", "ENVIRONMENT", "EXIT STATUS", "EXAMPLES"):
        assert f"\n{section}\n" in shown
    for option in (*VALUED, *FLAGS, "--minimal", "--multiple", "--help", "--version"):
        assert re.search(rf"(?<![-\w]){re.escape(option)}(?![-\w])", shown), option
    for key in (*VALUED.values(), "XE_EXTRA_ARGS", "~/.xe", "/run/domzero/xapi"):
        assert key in shown, key


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_man_shows_it_without_warnings() -> None:
    done = subprocess.run(
        ["man", "--warnings", "--local-file", "--encoding=UTF-8", str(PAGE)], capture_output=True, text=True,
        timeout=60, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MAN_KEEP_FORMATTING": "0"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "give a command to a XenServer-compatible host" in done.stdout
