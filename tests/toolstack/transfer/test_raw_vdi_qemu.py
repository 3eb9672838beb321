"""Raw disks on a real host: every format both ways, by `curl` and QEMU's own tools; hostile files; tools that die."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.harness import in_process
from tests.toolstack.transfer.raw_vdis import DATA, MIB, SIZE, Desk, desk

pytestmark = pytest.mark.slow

CONTENT = DATA.ljust(SIZE, b"\0")
DRIVERS = {"raw": "raw", "vhd": "vpc", "qcow2": "qcow2"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory: Path = tmp_path_factory.mktemp("raw")
    with in_process(directory, hypervisor="qemu", network="user") as host:
        yield desk(host, directory)


@pytest.fixture(autouse=True)
def nothing_is_left(place: Desk) -> Iterator[None]:
    yield
    assert place.tools() == []
    assert place.spools() == []


def image(place: Desk, format: str, *options: str) -> Path:
    """A file as QEMU makes it."""
    disk, path = place.file(CONTENT, "disk"), place.directory / f"given.{format}"
    argv: list[str | Path] = ["qemu-img", "convert", "-f", "raw", "-O", DRIVERS[format], *options, disk, path]
    subprocess.run(argv, check=True)
    return path


@pytest.mark.parametrize("inside", ["qcow2", "vhd", "raw"])
def test_every_format_both_ways(inside: str, place: Desk) -> None:
    for format, options in (
        ("raw", ()),
        ("vhd", ("-o", "force_size=on")),
        ("vhd", ("-o", "subformat=fixed,force_size=on")),
        ("qcow2", ()),
        ("qcow2", ("-c",)),
    ):
        vdi = place.disk(sm_config={"image-format": inside})
        record = place.put(image(place, format, *options), vdi=vdi, format=format)
        assert (record["status"], record["result"]) == ("success", ""), record
        assert place.get(vdi=vdi) == CONTENT
    for format, driver in DRIVERS.items():
        target = place.file(place.get(vdi=vdi, format=format), "taken")
        argv: list[str | Path] = ["qemu-img", "compare", "-f", "raw", "-F", driver, place.directory / "disk", target]
        assert subprocess.run(argv, capture_output=True, text=True).stdout == "Images are identical.\n"
        if format != "raw":
            assert target.stat().st_size < len(DATA) + 3 * MIB
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", target], check=True)


def test_what_is_there_is_replaced(place: Desk) -> None:
    for format, options in (("vhd", ("-o", "force_size=on")), ("qcow2", ())):
        vdi = place.disk(SIZE + 2 * MIB)
        place.put(place.file(b"\xff" * (SIZE + 2 * MIB)), vdi=vdi)
        assert place.put(image(place, format, *options), vdi=vdi, format=format)["status"] == "success"
        assert place.get(vdi=vdi)[:SIZE] == CONTENT


@pytest.mark.parametrize("format", ["raw", "vhd", "qcow2"])
def test_a_new_disk(format: str, place: Desk) -> None:
    options = ("-o", "force_size=on") if format == "vhd" else ()
    record = place.put(image(place, format, *options), sr_id=place.sr, format=format)
    made = re.fullmatch(r"<value>(OpaqueRef:.*)</value>", record["result"])
    assert made is not None, record
    assert place.get(vdi=made[1]) == CONTENT
    assert int(place.api.VDI.get_physical_utilisation(made[1])) < len(DATA)


def hostile(place: Desk, name: str) -> Path:
    path = place.directory / "hostile.qcow2"
    path.unlink(missing_ok=True)
    argv: list[str | Path] = ["qemu-img", "create", "-q", "-f", "qcow2"]
    if name == "names the host's files":
        (place.directory / "outside").write_bytes(b"the host's own")
        argv += ["-u", "-b", str(place.directory / "outside"), "-F", "raw"]
    elif name == "names a file of another disk":
        argv += ["-u", "-b", str(next((place.directory / "sr").iterdir())), "-F", "qcow2"]
    elif name == "keeps its data elsewhere":
        # qemu-img makes the data file anew, whatever it is: it must be one of the test's own.
        argv += ["-o", f"data_file={place.directory / 'outside'},data_file_raw=on"]
    subprocess.run([*argv, path, "8M"], check=True)
    if name == "claims too much":
        with path.open("r+b") as file:
            file.seek(24)
            file.write(struct.pack(">Q", 1 << 60))
    if name == "is garbage behind its head":
        path.write_bytes(path.read_bytes()[:104] + os.urandom(100_000))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "names the host's files",
        "names a file of another disk",
        "keeps its data elsewhere",
        "claims too much",
        "is garbage behind its head",
    ],
)
def test_hostile_qcow2(name: str, place: Desk) -> None:
    before = place.api.SR.get_VDIs(place.sr)
    record = place.put(hostile(place, name), sr_id=place.sr, format="qcow2")
    assert record["status"] == "failure", record
    assert record["error_info"][0] in ("SR_BACKEND_FAILURE", "VDI_TOO_LARGE"), record
    assert "root" not in str(record)
    assert place.api.SR.get_VDIs(place.sr) == before


def test_files_larger_than_their_disk_can_be(place: Desk) -> None:
    path = place.directory / "bomb.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64k"], check=True)
    os.truncate(path, 80 * MIB)
    record = place.put(path, sr_id=place.sr, format="qcow2")
    assert record["error_info"] == ["IMPORT_ERROR", "it is larger than a file with such a disk can be"]
    for rubbish in (b"", b"QFI", b"x" * 5000):
        record = place.put(place.file(rubbish), sr_id=place.sr, format="qcow2")
        assert record["error_info"][0] in ("IMPORT_ERROR", "INTERNAL_ERROR"), record


def test_a_tool_that_dies(place: Desk) -> None:
    """While a new disk is being filled, slowly: nothing is left of it."""
    before = place.api.SR.get_VDIs(place.sr)
    task = place.api.task.create("upload", "")
    file = place.file(os.urandom(40 * MIB), "large")
    query = f"session_id={place.session}&sr_id={place.sr}&task_id={task}"
    argv: list[str | Path] = [
        "curl",
        "-sk",
        "--limit-rate",
        "5M",
        "-T",
        file,
        f"{place.host.url}/import_raw_vdi?{query}",
    ]
    with subprocess.Popen(argv) as curl:
        deadline = time.monotonic() + 60
        while not place.api.task.get_progress(task):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(place.tools()[0], signal.SIGKILL)
        record = place.ended(task)
        curl.kill()
    assert record["status"] == "failure"
    assert "lost" in record["error_info"][-1]
    assert place.api.SR.get_VDIs(place.sr) == before


def test_a_cancelled_download(place: Desk) -> None:
    vdi = place.disk(200 * MIB)
    task = place.api.task.create("download", "")
    query = f"session_id={place.session}&vdi={vdi}&task_id={task}"
    argv = ["curl", "-sk", "--limit-rate", "5M", "-o", "/dev/null", f"{place.host.url}/export_raw_vdi?{query}"]
    with subprocess.Popen(argv) as curl:
        deadline = time.monotonic() + 60
        while not place.api.task.get_progress(task):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        place.api.task.cancel(task)
        assert place.ended(task)["status"] == "cancelled"
        assert curl.wait(60) != 0
    assert place.api.VDI.get_current_operations(vdi) == {}
