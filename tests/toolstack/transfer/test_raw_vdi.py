"""Raw disks by `curl` over TLS and by `xe`, on a simulated host: bytes, sizes, refusals, failures, cancellations."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domzero.wire.disk_parts import Runs
from domzero.wire.vhd import BLOCK, LARGEST, DynamicVhd, footer
from tests.api.harness import in_process
from tests.toolstack.transfer.raw_vdis import DATA, HOLE, MIB, SIZE, Desk, desk
from tests.wire.disk_streams import encoded
from tests.wire.test_disk_formats import BLANK, ID, NOW, chunk
from tests.xe.terminal import process, socket_of

CONTENT = DATA.ljust(SIZE, b"\0")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory: Path = tmp_path_factory.mktemp("raw")
    with in_process(directory) as host:
        yield desk(host, directory)


@pytest.fixture
def vdi(place: Desk) -> str:
    return place.disk()


def vhd(disk: bytes) -> bytes:
    """A VHD that has every block."""
    runs = Runs(BLOCK, len(disk))
    runs.add(0, len(disk))
    return encoded(DynamicVhd(len(disk), runs, ID, NOW).pieces(), disk)


def result(record: dict[str, Any]) -> str:
    assert record["status"] == "success", record["error_info"]
    return str(record["result"])


def failure(record: dict[str, Any]) -> list[str]:
    assert record["status"] == "failure"
    return list(record["error_info"])


def test_there_and_back(place: Desk, vdi: str) -> None:
    assert result(place.put(place.file(DATA), vdi=vdi)) == ""
    assert place.get(vdi=vdi) == CONTENT
    assert place.get(vdi=place.api.VDI.get_uuid(vdi), format="raw") == CONTENT
    used = int(place.api.VDI.get_physical_utilisation(vdi))
    assert len(DATA) - HOLE <= used <= len(DATA) - HOLE + 256 * 1024
    assert result(place.put(place.file(bytes(2 * MIB)), vdi=vdi)) == ""
    assert place.get(vdi=vdi) == bytes(2 * MIB) + CONTENT[2 * MIB :]
    assert int(place.api.VDI.get_physical_utilisation(vdi)) < used


def test_the_answers_head(place: Desk, vdi: str) -> None:
    types = {"raw": "application/octet-stream", "vhd": "application/vhd", "qcow2": "application/x-qemu-disk"}
    for format, type in types.items():
        code, head = place.curl("/export_raw_vdi", "-o", "/dev/null", "-D", "-", vdi=vdi, format=format)
        assert code == 0
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f"content-type: {type}\r\n".encode() in head
        assert f'filename="{place.api.VDI.get_uuid(vdi)}.{format}"'.encode() in head
        assert re.search(rb"content-length: \d+\r\n", head)
        assert re.search(rb"task-id: OpaqueRef:", head)


def test_a_vhd(place: Desk, vdi: str) -> None:
    place.put(place.file(b"\xff" * SIZE), vdi=vdi)
    assert result(place.put(place.file(vhd(DATA[: 4 * MIB])), vdi=vdi, format="vhd")) == ""
    assert place.get(vdi=vdi) == DATA[: 4 * MIB] + b"\xff" * (SIZE - 4 * MIB)
    back = place.get(vdi=vdi, format="vhd")
    other = place.disk()
    assert result(place.put(place.file(back), vdi=other, format="vhd")) == ""
    assert place.get(vdi=other) == place.get(vdi=vdi)
    assert result(place.put(place.file(BLANK), vdi=vdi, format="vhd")) == ""
    assert place.get(vdi=vdi)[: 2 * MIB] == bytes(2 * MIB)


def test_what_differs_from_a_base(place: Desk, vdi: str) -> None:
    """As backups do it: a whole disk once, then what changed, which is put on a copy of what was kept."""
    place.put(place.file(DATA), vdi=vdi)
    kept, base = place.get(vdi=vdi, format="vhd"), place.api.VDI.snapshot(vdi, {})
    place.put(place.file(chunk(3 * MIB, b"new") + chunk(SIZE - 1, b"x") + chunk(0, b"")), vdi=vdi, chunked="true")
    place.put(place.file(chunk(2 * MIB, bytes(2 * MIB)) + chunk(0, b"")), vdi=vdi, chunked="true")
    changed = place.get(vdi=vdi, format="vhd", base=place.api.VDI.get_uuid(base))
    assert 4 * MIB < len(changed) < 4 * MIB + 8192
    assert len(place.get(vdi=base, format="vhd", base=base)) < 8192
    restored = place.disk()
    result(place.put(place.file(kept), vdi=restored, format="vhd"))
    assert place.get(vdi=restored) == CONTENT
    result(place.put(place.file(changed), vdi=restored, format="vhd"))
    assert place.get(vdi=restored) == place.get(vdi=vdi) != CONTENT
    assert failure(place.put(place.file(changed), sr_id=place.sr, format="vhd"))[0] == "IMPORT_ERROR"
    small, large = place.disk(SIZE - 3 * MIB), place.disk(SIZE + MIB)
    assert len(place.get(vdi=vdi, format="vhd", base=small)) > 2 * MIB
    for query, status in (({"base": large, "format": "vhd"}, b"500"), ({"base": base}, b"400")):
        printed = ("-o", "/dev/null", "-w", "%{http_code}")
        assert place.curl("/export_raw_vdi", *printed, vdi=vdi, **query) == (0, status)


def test_parts_in_xenservers_framing(place: Desk, vdi: str) -> None:
    parts = [(MIB, DATA[:MIB]), (0, b"\1" * 5), (MIB + 10, b"\2" * 10), (2 * MIB, DATA[: 3 * MIB]), (6 * MIB, b"")]
    wanted = bytearray(SIZE)
    for offset, data in parts:
        wanted[offset : offset + len(data)] = data
    stream = b"".join(chunk(*part) for part in parts) + chunk(0, b"")
    assert result(place.put(place.file(stream), vdi=vdi, chunked="true")) == ""
    assert place.get(vdi=vdi) == wanted
    for bad in (stream[:-1], chunk(0, b"xy")[:-1], b"abc"):
        assert failure(place.put(place.file(bad), vdi=vdi, chunked="1"))[0] in ("INTERNAL_ERROR", "IMPORT_ERROR")
    assert failure(place.put(place.file(chunk(SIZE - 1, b"xy")), vdi=vdi, chunked="1")) == [
        "VDI_TOO_SMALL", vdi, str(SIZE + 1),
    ]  # fmt: skip


def test_a_new_disk(place: Desk) -> None:
    for query in ({"sr_id": place.sr}, {"sr_uuid": place.api.SR.get_uuid(place.sr)}):
        for format, stream in (("raw", CONTENT), ("vhd", vhd(CONTENT))):
            made = re.fullmatch(r"<value>(OpaqueRef:.*)</value>", result(place.put(
                place.file(stream), format=format, **query
            )))  # fmt: skip
            assert made is not None
            record = place.api.VDI.get_record(made[1])
            assert (record["name_label"], record["SR"]) == ("Imported VDI", place.sr)
            assert int(record["virtual_size"]) == SIZE
            assert not record["current_operations"]
            assert place.get(vdi=made[1]) == CONTENT


def test_an_upload_without_a_length(place: Desk, vdi: str) -> None:
    """HTTP/1.0 as old clients send it: the body ends with the connection."""
    task = place.api.task.create("upload", "")
    host, port = place.host.url.removeprefix("https://").split(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    head = f"PUT /import_raw_vdi?session_id={place.session}&vdi={vdi}&task_id={task} HTTP/1.0\r\n\r\n"
    with context.wrap_socket(socket.create_connection((host, int(port)))) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")  # before the body
        connection.sendall(DATA)
        connection.unwrap()
    result(place.ended(task))
    assert place.get(vdi=vdi) == CONTENT


def test_refusals(place: Desk, vdi: str) -> None:
    api = place.api
    bad = b"HTTP/1.1 400 Bad Request"
    gone = "OpaqueRef:11111111-1111-1111-1111-111111111111"
    assert place.refused()[0] == bad
    assert place.refused(vdi=vdi, format="vmdk")[0] == bad
    assert place.refused(vdi=vdi, format="vhd", chunked="true")[0] == bad
    assert place.refused(vdi=vdi, chunked="perhaps")[0] == bad
    assert place.refused(sr_id=place.sr, chunked="true")[0] == bad
    assert place.refused(vdi=gone) == (b"HTTP/1.1 404 Not Found", ["HANDLE_INVALID", "VDI", gone])
    assert place.refused(vdi="none")[1] == ["UUID_INVALID", "VDI", "none"]
    assert place.refused(sr_id=gone)[1] == ["HANDLE_INVALID", "SR", gone]
    assert place.refused(vdi=place.disk(read_only=True))[1][0] == "VDI_READONLY"
    iso = next(sr for sr in api.SR.get_all() if api.SR.get_type(sr) == "iso")
    assert place.refused(sr_id=iso)[1][0] == "SR_OPERATION_NOT_SUPPORTED"


def test_content_that_is_too_long(place: Desk, vdi: str) -> None:
    place.put(place.file(DATA), vdi=vdi)
    assert failure(place.put(place.file(bytes(SIZE + 1)), vdi=vdi)) == ["VDI_TOO_SMALL", vdi, str(SIZE + 1)]
    large = vhd(bytes(SIZE + 2 * MIB))
    assert failure(place.put(place.file(large), vdi=vdi, format="vhd")) == ["VDI_TOO_SMALL", vdi, str(SIZE + 2 * MIB)]
    assert place.get(vdi=vdi) == CONTENT


def test_disks_that_no_vhd_can_hold(place: Desk, vdi: str) -> None:
    api, limit = place.api, str(LARGEST)
    config = {"location": "x", "sim:physical-size": str(8 << 40)}
    sr = api.SR.create(api.host.get_all()[0], config, "0", "large", "", "file", "user", False, {})
    large = place.disk(LARGEST + 2 * MIB, SR=sr)
    task = api.task.create("download", "")
    place.curl("/export_raw_vdi", "-o", "/dev/null", task_id=task, vdi=large, format="vhd")
    assert failure(place.ended(task)) == ["VDI_TOO_LARGE", large, limit]
    stream = place.file(footer(LARGEST + 512, 3, ID, NOW))
    assert failure(place.put(stream, vdi=vdi, format="vhd")) == ["VDI_TOO_LARGE", vdi, limit]
    assert failure(place.put(stream, sr_id=sr, format="vhd")) == ["VDI_TOO_LARGE", "OpaqueRef:NULL", limit]


def test_a_client_that_says_chunks(place: Desk, vdi: str) -> None:
    record = place.put(place.file(DATA), "-H", "Transfer-Encoding: chunked", vdi=vdi)
    assert failure(record) == ["IMPORT_ERROR_CANNOT_HANDLE_CHUNKED"]


def test_a_disk_in_use(place: Desk, vdi: str) -> None:
    api = place.api
    vm = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "user")
    api.VM.provision(vm)
    api.VBD.create({
        "VM": vm, "VDI": vdi, "userdevice": "5", "bootable": False, "mode": "RW", "type": "Disk", "unpluggable": True,
        "empty": False, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
    })  # fmt: skip
    api.VM.start(vm, False, False)
    assert place.refused(vdi=vdi) == (b"HTTP/1.1 500 Internal Server Error", ["VDI_IN_USE", vdi, "import"])
    task = api.task.create("download", "")
    place.curl("/export_raw_vdi", "-o", "/dev/null", task_id=task, vdi=vdi)
    assert failure(place.ended(task)) == ["VDI_IN_USE", vdi, "copy"]
    api.VM.hard_shutdown(vm)
    result(place.put(place.file(DATA), vdi=vdi))
    api.VM.destroy(vm)


@pytest.mark.parametrize(
    ("fault", "code"),
    [("fail-write-content=44 no room", "SR_BACKEND_FAILURE_44"), ("fail-open-content=locked", "SR_BACKEND_FAILURE")],
)
def test_media_that_fail(fault: str, code: str, place: Desk) -> None:
    """Of a new disk nothing is left."""
    api = place.api
    key, _, value = fault.partition("=")
    host, config = api.host.get_all()[0], {"location": "x", f"sim:{key}": value}
    sr = api.SR.create(host, config, "0", "failing", "", "file", "user", False, {})
    assert failure(place.put(place.file(DATA), sr_id=sr))[0] == code
    assert api.SR.get_VDIs(sr) == []


def test_a_client_that_goes_away(place: Desk) -> None:
    """In the middle of an upload to a new disk, and of a download."""
    before = place.api.SR.get_VDIs(place.sr)
    query = f"/import_raw_vdi?session_id={place.session}&sr_id={place.sr}&task_id="
    task = place.api.task.create("upload", "")
    with _connected(place) as connection:
        connection.sendall(f"PUT {query}{task} HTTP/1.1\r\nContent-Length: {SIZE}\r\n\r\n".encode() + DATA[:MIB])
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    error = failure(place.ended(task))
    assert error[0] == "INTERNAL_ERROR"
    assert "went away" in error[1]
    assert place.api.SR.get_VDIs(place.sr) == before
    vdi, task = place.disk(100 * MIB), place.api.task.create("download", "")
    with _connected(place) as connection:
        path = f"/export_raw_vdi?session_id={place.session}&vdi={vdi}&task_id={task}"
        connection.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        connection.recv(1000)
    assert failure(place.ended(task))[0] == "INTERNAL_ERROR"
    assert place.api.VDI.get_current_operations(vdi) == {}


def test_cancelling(place: Desk) -> None:
    before = place.api.SR.get_VDIs(place.sr)
    task = place.api.task.create("upload", "")
    query = f"/import_raw_vdi?session_id={place.session}&sr_id={place.sr}&task_id={task}"
    with _connected(place) as connection:
        connection.sendall(f"PUT {query} HTTP/1.1\r\nContent-Length: {SIZE}\r\n\r\n".encode() + DATA[:MIB])
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        deadline = time.monotonic() + 60
        while "cancel" not in place.api.task.get_allowed_operations(task):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        place.api.task.cancel(task)
        assert place.ended(task)["status"] == "cancelled"
    assert place.api.SR.get_VDIs(place.sr) == before


def _connected(place: Desk) -> ssl.SSLSocket:
    host, port = place.host.url.removeprefix("https://").split(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = socket.create_connection((host, int(port)), 20)
    # Without warning when it closes, as of a machine that lost its power.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return context.wrap_socket(connection)


def xe(place: Desk, *arguments: str) -> None:
    """Our own client, as people run it; it has nothing to say."""
    done = process(*arguments, "-s", str(socket_of(place.host)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done


@pytest.mark.slow
def test_by_xe(place: Desk, vdi: str) -> None:
    uuid, file = place.api.VDI.get_uuid(vdi), place.file(DATA, "given")
    xe(place, "vdi-import", f"uuid={uuid}", f"filename={file}")
    for format in ("raw", "vhd"):
        target = place.directory / f"taken.{format}"
        xe(place, "vdi-export", f"uuid={uuid}", f"filename={target}", f"format={format}")
        other = place.disk()
        xe(place, "vdi-import", f"uuid={place.api.VDI.get_uuid(other)}", f"filename={target}", f"format={format}")
        assert place.get(vdi=other) == CONTENT
    assert (place.directory / "taken.raw").read_bytes() == CONTENT
    done = process(
        "vdi-import", f"uuid={uuid}", f"filename={target}", "format=floppy", "-s", str(socket_of(place.host))
    )
    assert done.returncode == 1
