"""What children are given, and what they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from domzero.host import confinement
from domzero.host.confinement import CHANGING_USER, Confinement, ConfinementError, deprived, enter
from domzero.host.process import run, spawn_detached

IS_ROOT = os.geteuid() == 0


def test_a_detached_child_has_no_descriptors_but_its_own(tmp_path: Path) -> None:
    """Not even those that whoever started us left open, and that every child would inherit."""
    output = os.open(tmp_path / "said", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    left_open, passed = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(left_open, True)
    try:
        pid = spawn_detached(["sh", "-c", "exec ls -l /proc/self/fd"], output=output, pass_fds=[passed])
        os.waitpid(pid, 0)
    finally:
        for descriptor in (output, left_open, passed):
            os.close(descriptor)
    words = [line.split() for line in (tmp_path / "said").read_text().splitlines()[1:]]
    opened = {int(line[-3]): line[-1] for line in words}
    assert opened[passed] == str(tmp_path)
    assert [number for number, target in opened.items() if target == str(tmp_path)] == [passed]
    assert sorted(opened)[:3] == [0, 1, 2]
    assert len(opened) == 5, "and the directory that is listed"


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="needs root")
async def test_capabilities_are_taken_away_for_good() -> None:
    said = (await run([*deprived(), "cat", "/proc/self/status"])).stdout.decode()
    fields = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"] == "1"
    assert fields["CapBnd"] == fields["CapPrm"] == fields["CapEff"]
    assert int(fields["CapBnd"], 16).bit_count() == len(CHANGING_USER)
    assert {int(fields["CapInh"], 16), int(fields["CapAmb"], 16)} == {0}


def test_nothing_is_begun_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot be shut in whole is told so, and is as before."""
    monkeypatch.setattr(confinement, "FILTER_LIBRARY", "libmissing.so.0")
    before = Path("/proc/self/status").read_text().partition("NoNewPrivs:")[2].split()[0]
    with pytest.raises(ConfinementError, match="libmissing"):
        enter(Confinement(tmp_path, None), {}, ("read", "write", "exit"))
    assert Path("/proc/self/status").read_text().partition("NoNewPrivs:")[2].split()[0] == before
