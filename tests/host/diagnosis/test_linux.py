"""What a report tells of a Linux machine, on the one that runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from domzero.host.diagnosis.linux import MOST, LinuxDiagnosis, tail


@pytest.fixture
def diagnosis(tmp_path: Path) -> LinuxDiagnosis:
    (tmp_path / "log").mkdir()
    return LinuxDiagnosis(tmp_path / "run", tmp_path / "log")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like a machine's, with a log of its own."""
    directory = tmp_path / "run" / "7"
    directory.mkdir(parents=True)
    (directory / "qemu.log").write_text("it said this\n")
    command = ("qemu-system-test", "-c", "input()", f"{directory}/serial.sock")
    with subprocess.Popen(command, executable=sys.executable, stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


async def test_machines(diagnosis: LinuxDiagnosis, machine: subprocess.Popen[bytes]) -> None:
    texts = await diagnosis.hypervisor()
    assert texts["domain-7-qemu.log"] == "it said this\n"
    lines = texts["command-lines.txt"]
    assert f"{machine.pid}:\n    qemu-system-test\n" in lines
    assert "serial.sock" in lines


async def test_processes_are_without_their_arguments(
    diagnosis: LinuxDiagnosis, machine: subprocess.Popen[bytes]
) -> None:
    text = (await diagnosis.processes())["processes.txt"]
    rows = {line.split()[0]: line.split() for line in text.splitlines()[1:]}
    assert rows[str(machine.pid)][1] == str(os.getpid())
    assert "serial.sock" not in text


async def test_every_part_is_there_and_of_bounded_size(diagnosis: LinuxDiagnosis) -> None:
    for texts in (await diagnosis.network(), await diagnosis.storage(), await diagnosis.hardware()):
        assert texts
        assert all(len(text) <= 2 * MOST for text in texts.values())
        assert all("/" not in name for name in texts)
    assert "MemTotal" in (await diagnosis.hardware())["meminfo.txt"]


def test_the_end_of_a_long_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * MOST + b"the end")
    assert len(tail(tmp_path / "long")) == MOST
    assert tail(tmp_path / "long").endswith("the end")
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert "cannot be read" in tail(tmp_path / "link")
    assert "cannot be read" in tail(tmp_path / "nowhere")


def test_logs_are_plain_files(diagnosis: LinuxDiagnosis, tmp_path: Path) -> None:
    for name in ("domzero.log", "domzero.log.1", "audit.log", "else"):
        (tmp_path / "log" / name).touch()
    (tmp_path / "log" / "link.log").symlink_to("/etc/passwd")
    assert [path.name for path in diagnosis.log_files()] == ["audit.log", "domzero.log", "domzero.log.1"]
