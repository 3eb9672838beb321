"""The lab can be booted, and domzero runs in it as a service (tests/lab/test_smoke.py says what that is)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.house.sources import ROOT

SECONDS = 900


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.root
@pytest.mark.timeout(SECONDS)
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a Debian machine")
@pytest.mark.skipif(not Path("/etc/debian_version").exists(), reason="needs Debian's tools")
@pytest.mark.skipif("DOMZERO_LAB" in os.environ, reason="this is the lab")
@pytest.mark.skipif(shutil.which("git") is None, reason="the source is taken from git")
def test_domzero_runs_as_a_service_in_the_lab() -> None:
    """Where somebody has made the lab's disk, which takes minutes that the whole suite has not to give."""
    if lab("made").returncode != 0:
        pytest.skip("the lab has no disk yet: script/lab build")
    ended = lab("smoke")
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]


def lab(word: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "script/lab", word], capture_output=True, text=True, timeout=SECONDS / 2 - 5)
