"""Machines in and out by parts that nobody here wrote: curl, the official binding, tar, sha1sum; and by `xe`."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.harness import PASSWORD, InProcessHost, in_process, login
from tests.xe.terminal import process, secured, socket_of
from tests.xva_writer import machine, xva

pytestmark = pytest.mark.slow

CONTENT = b"boot" + bytes(3 << 20) + b"end of it"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessHost]:
    with in_process(tmp_path_factory.mktemp("host")) as running:
        yield running


@pytest.fixture(scope="module")
def api(host: InProcessHost) -> Iterator[Any]:
    session = login(host.url)
    yield session.xenapi
    session.xenapi.session.logout()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.xva"
    path.write_bytes(xva(machine("web", {"0": CONTENT})))
    return path


def curl(*arguments: str) -> tuple[int, bytes]:
    done = subprocess.run(["curl", "-sSk", "--max-time", "60", *arguments], capture_output=True, check=False)
    return done.returncode, done.stdout


def sign_in(host: InProcessHost) -> str:
    return host.url.replace("https://", f"https://root:{PASSWORD.replace(' ', '%20')}@")


def ended(api: Any, task: str) -> dict[str, Any]:
    """The task's record once it is over."""
    for _ in range(600):
        record: dict[str, Any] = api.task.get_record(task)
        if record["status"] not in ("pending", "cancelling"):
            return record
        time.sleep(0.05)
    raise AssertionError("the task does not end")


def upload(host: InProcessHost, api: Any, file: Path, query: str = "", *options: str) -> dict[str, Any]:
    """Import with curl under a task; the task's record afterwards."""
    task = api.task.create("import", "")
    url = f"{sign_in(host)}/import?task_id={task}{query}"
    curl(*options, "-T", str(file), url)
    return ended(api, task)


def first_disk(api: Any, vm: str) -> str:
    return str(api.VBD.get_VDI(api.VM.get_VBDs(vm)[0]))


def medium(host: InProcessHost, api: Any, vdi: str) -> bytes:
    state = host.settings.state_dir
    (path,) = Path(state).rglob(f"{api.VDI.get_location(vdi)}.raw")
    return path.read_bytes()


@pytest.mark.parametrize("options", [[], ["-H", "Expect:"], ["--http1.0"]], ids=str)
def test_curl_brings_a_machine_and_fetches_it(
    host: InProcessHost, api: Any, archive: Path, tmp_path: Path, options: list[str]
) -> None:
    record = upload(host, api, archive, "", *options)
    assert record["status"] == "success", record["error_info"]
    (vm,) = (piece.split("<")[0] for piece in record["result"].split("<value>") if piece.startswith("OpaqueRef"))
    assert medium(host, api, first_disk(api, vm)).startswith(CONTENT)
    out = tmp_path / "ours.xva"
    task = api.task.create("export", "")
    uuid = api.VM.get_uuid(vm)
    assert curl("-o", str(out), f"{sign_in(host)}/export?uuid={uuid}&task_id={task}")[0] == 0
    assert ended(api, task)["status"] == "success"
    check_by_hand(out)
    again = upload(host, api, out)
    assert again["status"] == "success"
    for made in (vm, again["result"].split("<value>")[2].split("<")[0]):
        vdi = first_disk(api, made)
        api.VM.destroy(made)
        api.VDI.destroy(vdi)


def check_by_hand(path: Path) -> None:
    """Every block is what the file behind it says; `tar` reads all of it."""
    listed = subprocess.run(["tar", "-tf", path], capture_output=True, text=True, check=True).stdout.split()
    assert listed[0] == "ova.xml"
    with tarfile.open(path) as tar:
        for name in listed:
            if name.endswith(".checksum"):
                block, said = tar.extractfile(name.removesuffix(".checksum")), tar.extractfile(name)
                assert block is not None
                assert said is not None
                assert hashlib.sha1(block.read()).hexdigest() == said.read().decode()


def test_the_head_of_an_export(host: InProcessHost, api: Any, archive: Path) -> None:
    record = upload(host, api, archive)
    vm = record["result"].split("<value>")[2].split("<")[0]
    code, head = curl("-o", "/dev/null", "-D", "-", f"{sign_in(host)}/export?ref={vm}")
    lines = head.decode().lower().splitlines()
    assert code == 0
    assert any(line.startswith("task-id: opaqueref:") for line in lines)
    assert 'content-disposition: attachment; filename="export.xva"' in lines
    assert not any(line.startswith("content-length") for line in lines)
    code, head = curl("-o", "/dev/null", "-D", "-", f"{sign_in(host)}/export_metadata?ref={vm}")
    assert any(line.startswith("content-length: ") for line in head.decode().lower().splitlines())
    code, description = curl(f"{sign_in(host)}/export_metadata?all=true")
    assert len(description) % 512 == 0
    code, said = curl("-w", "%{http_code}", "-o", "/dev/null", f"{sign_in(host)}/export?uuid=nonsense")
    assert said == b"404"
    code, said = curl("-w", "%{http_code}", "-o", "/dev/null", f"{sign_in(host)}/export")
    assert said == b"400"


def test_failures_are_told_by_the_task(host: InProcessHost, api: Any, archive: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.xva"
    cut.write_bytes(archive.read_bytes()[:100_000])
    before = set(api.VM.get_all()), set(api.VDI.get_all())
    assert upload(host, api, cut)["error_info"] == ["IMPORT_ERROR_PREMATURE_EOF"]
    chunked = upload(host, api, archive, "", "-H", "Transfer-Encoding: chunked")
    assert chunked["error_info"] == ["IMPORT_ERROR_CANNOT_HANDLE_CHUNKED"]
    assert upload(host, api, archive, "&sr_id=nonsense")["error_info"] == ["DEFAULT_SR_NOT_FOUND", "nonsense"]
    library = next(sr for sr, row in api.SR.get_all_records().items() if row["content_type"] == "iso")
    assert upload(host, api, archive, f"&sr_id={library}")["error_info"] == ["SR_OPERATION_NOT_SUPPORTED", library]
    url = f"{sign_in(host)}/import?sr_id={library}"
    assert curl("-o", "/dev/null", "-w", "%{http_code}", "-T", str(archive), url)[1] == b"400"
    assert (set(api.VM.get_all()), set(api.VDI.get_all())) == before


def test_exports_of_what_cannot_be_exported(host: InProcessHost, api: Any, archive: Path) -> None:
    vm = upload(host, api, archive)["result"].split("<value>")[2].split("<")[0]
    api.VM.start(vm, False, False)
    task = api.task.create("export", "")
    curl("-o", "/dev/null", f"{sign_in(host)}/export?ref={vm}&task_id={task}")
    assert ended(api, task)["error_info"] == ["VM_BAD_POWER_STATE", vm, "halted, suspended", "running"]
    api.VM.hard_shutdown(vm)


def xe(host: InProcessHost, *arguments: str) -> subprocess.CompletedProcess[str]:
    return process("-s", str(socket_of(host)), *arguments)


@pytest.mark.parametrize("compress", ["", "compress=true", "compress=zstd"])
def test_xe_exports_and_imports(host: InProcessHost, api: Any, tmp_path: Path, compress: str) -> None:
    vm = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "by xe")
    api.VM.provision(vm)
    file = tmp_path / "machine.xva"
    words = [word for word in (compress,) if word]
    said = xe(host, "vm-export", f"uuid={api.VM.get_uuid(vm)}", f"filename={file}", *words)
    assert (said.returncode, said.stdout.strip()) == (0, "Export succeeded"), said.stderr
    said = xe(host, "vm-import", f"filename={file}")
    assert said.returncode == 0, said.stderr
    made = api.VM.get_by_uuid(said.stdout.strip())
    assert api.VM.get_name_label(made) == "by xe"
    said = xe(host, "vm-import", f"filename={file}", "preserve=true")
    assert "version_to_import: 0" in said.stderr
    snapshot = api.VM.snapshot(vm, "captured", [])
    for command, reference in (("snapshot-export-to-template", "snapshot"), ("template-export", "template")):
        uuid = api.VM.get_uuid(snapshot)
        said = xe(host, command, f"{reference}-uuid={uuid}", f"filename={tmp_path / command}")
        assert said.returncode == 0, said.stderr
        said = xe(host, "vm-import", f"filename={tmp_path / command}")
        made = api.VM.get_by_uuid(said.stdout.strip())
        assert api.VM.get_is_a_template(made)
        assert not api.VM.get_is_a_snapshot(made)
    said = xe(host, "vm-export", f"uuid={api.VM.get_uuid(vm)}", f"filename={tmp_path / 'm'}", "metadata=true")
    assert said.returncode == 0, said.stderr
    said = xe(host, "vm-import", f"filename={tmp_path / 'm'}", "metadata=true")
    assert said.returncode == 0, said.stderr


def test_xe_imports_what_is_at_an_address(host: InProcessHost, api: Any, tmp_path: Path) -> None:
    """From the host's own pages here: `VM.import` fetches, whoever serves."""
    vm = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "from afar")
    api.VM.provision(vm)
    session = login(host.url)

    async def listen() -> int:
        return host.daemon.server.listen_http("127.0.0.1", 0)

    port = asyncio.run_coroutine_threadsafe(listen(), host.loop).result(10)
    url = f"http://127.0.0.1:{port}/export?ref={vm}&session_id={session.handle}"
    said = xe(host, "vm-import", f"url={url}")
    assert said.returncode == 0, said.stderr
    assert api.VM.get_name_label(api.VM.get_by_uuid(said.stdout.strip())) == "from afar"
    said = xe(host, "vm-import", f"url=http://127.0.0.1:{port}/nothing")
    assert (said.returncode, "IMPORT_ERROR" in said.stderr or "could not be fetched" in said.stderr) == (1, True)


def put(host: InProcessHost, session: Any, body: bytes) -> dict[str, Any]:
    """Import as the oldest clients do: HTTP/1.0, no length, the end of what is sent is the end. The task's record."""
    task = session.xenapi.task.create("import", "")
    with secured(host) as connection:
        request = f"PUT /import?task_id={task}&session_id={session.handle} HTTP/1.0\r\n\r\n"
        connection.sendall(request.encode())
        answer = connection.recv(4096)
        assert answer.split(b"\r\n")[0].endswith(b"200 OK")
        connection.sendall(body)
        if len(body) < 100_000:
            connection.close()
        else:
            while connection.recv(4096):
                continue
    return ended(session.xenapi, task)


def test_bodies_without_a_length(host: InProcessHost, archive: Path) -> None:
    session = login(host.url)
    whole = archive.read_bytes()
    assert put(host, session, whole)["status"] == "success"
    assert put(host, session, whole[:50_000])["error_info"] == ["IMPORT_ERROR_PREMATURE_EOF"]
