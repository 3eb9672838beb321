"""Patches from upload to use, by `curl`, `xe` and the official binding."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import threading
import time
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from XenAPI import Failure

from domzero.host.updates.local import LocalUpdates
from domzero.host.updates.protocol import InstallError
from domzero.toolstack.patches import rules
from domzero.toolstack.patches.rules import TAKEN_BACK
from tests.api.harness import PASSWORD, InProcessHost, as_process, in_process, login
from tests.host.updates.bundles import HONEST, keys, made, real_wheel, trust, wheel
from tests.xe.terminal import printed, process, secured, socket_of


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("host")
    trust(directory / "state", keys(directory)[1])
    return directory


@pytest.fixture(scope="module")
def host(place: Path) -> Iterator[InProcessHost]:
    with in_process(place) as running:
        yield running


@pytest.fixture(scope="module")
def api(host: InProcessHost) -> Any:
    return login(host.url).xenapi


def bundle(place: Path, version: str, **kind: str) -> Path:
    return made(place, place / "maker-private.pem", version, wheel(place, version), **kind)


def put(host: InProcessHost, api: Any, file: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """The status of an upload, and its task."""
    task = api.task.create("upload", "")
    command = ["curl", "-sk", "--max-time", "20", "-w", "%{stderr}%{http_code}", "--user", f"root:{PASSWORD}", *words]
    done = subprocess.run([*command, "-T", file, f"{host.url}/pool_patch_upload?task_id={task}"], capture_output=True)
    return int(done.stderr), ended(api, task)


def ended(api: Any, task: str) -> dict[str, Any]:
    token = ""
    while (record := api.task.get_record(task))["status"] == "pending":
        token = getattr(api.event, "from")([f"task/{task}"], token, 5.0)["token"]
    return dict(record)


def fails(call: Any, *params: Any) -> list[str]:
    with pytest.raises(Failure) as error:
        call(*params)
    return list(error.value.details)


def stored(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "state" / "patches").glob("*"))


def test_a_good_one(host: InProcessHost, api: Any, place: Path) -> None:
    file = bundle(place, "7.0", name="seven")
    status, task = put(host, api, file)
    assert (status, task["status"]) == (200, "success")
    (patch,) = api.pool_patch.get_all()
    assert xmlrpc.client.loads(f"<params><param>{task['result']}</param></params>")[0] == (patch,)
    record = api.pool_patch.get_record(patch)
    assert (record["name_label"], record["version"], record["size"]) == ("seven", "7.0", str(file.stat().st_size))
    assert (record["after_apply_guidance"], record["pool_applied"], record["host_patches"]) == (
        ["restartXAPI"],
        False,
        [],
    )
    assert stored(place) == [f"{record['uuid']}.bundle"]
    status, task = put(host, api, file)
    assert task["error_info"] == ["PATCH_ALREADY_EXISTS", record["uuid"]]
    (this,) = api.host.get_all()
    assert "7.0" in api.pool_patch.precheck(patch, this)
    assert "seven" in printed(host, "patch-list", f"uuid={record['uuid']}")
    printed(host, "patch-clean", f"uuid={record['uuid']}")
    assert stored(place) == []
    assert fails(api.pool_patch.precheck, patch, this) == ["CANNOT_FIND_PATCH"]
    api.pool_patch.clean_on_host(patch, this)
    api.pool_patch.pool_clean(patch)
    api.pool_patch.destroy(patch)
    assert api.pool_patch.get_all() == []
    assert fails(api.pool_patch.destroy, patch) == ["HANDLE_INVALID", "pool_patch", patch]


def test_what_was_uploaded_comes_out_again(host: InProcessHost, api: Any, place: Path, tmp_path: Path) -> None:
    file = bundle(place, "7.1")
    assert put(host, api, file)[1]["status"] == "success"
    (patch,) = api.pool_patch.get_all()
    uuid = api.pool_patch.get_uuid(patch)
    for named in (f"uuid={uuid}", f"ref={patch}"):
        assert fetched(host, named, tmp_path / "out") == 200
        assert (tmp_path / "out").read_bytes() == file.read_bytes()
    host.run(host.daemon.engine.users.add("lesser", PASSWORD, "vm-power-admin"))
    assert fetched(host, f"uuid={uuid}", tmp_path / "out", "lesser") == 403
    assert fetched(host, "uuid=../../passwords.json", tmp_path / "out") == 404
    assert fetched(host, "", tmp_path / "out") == 400
    api.pool_patch.clean(patch)
    assert fetched(host, f"uuid={uuid}", tmp_path / "out") == 404
    assert b"CANNOT_FIND_PATCH" in (tmp_path / "out").read_bytes()
    api.pool_patch.destroy(patch)


def fetched(host: InProcessHost, query: str, target: Path, user: str = "root") -> int:
    who = f"{user}:{PASSWORD}"
    done = subprocess.run(
        ["curl", "-sk", "--max-time", "20", "-w", "%{http_code}", "--user", who, "-o", target,
         f"{host.url}/pool_patch_download?{query}"], capture_output=True, text=True,
    )  # fmt: skip
    return int(done.stdout)


class Slow(LocalUpdates):
    """Takes as long as it is told to, and then installs nothing."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.begun, self.go_on = threading.Event(), threading.Event()

    async def install(self, file: Path) -> str:
        self.begun.set()
        await asyncio.to_thread(self.go_on.wait, 20)
        raise InstallError("the disk is full")


def test_what_is_being_installed_is_left_alone(
    host: InProcessHost, api: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(place / "state" / "updates")
    monkeypatch.setattr(host.daemon.stack, "updates", slow)
    assert put(host, api, bundle(place, "7.2"))[1]["status"] == "success"
    (patch,) = api.pool_patch.get_all()
    (this,) = api.host.get_all()
    task = api.Async.pool_patch.apply(patch, this)
    assert slow.begun.wait(20)
    for call in (api.pool_patch.destroy, api.pool_patch.clean, api.pool_patch.pool_apply):
        assert fails(call, patch) == ["OTHER_OPERATION_IN_PROGRESS", "pool_patch", patch]
    slow.go_on.set()
    assert ended(api, task)["error_info"] == ["PATCH_APPLY_FAILED", "the disk is full"]
    api.pool_patch.destroy(patch)
    assert stored(place) == []


def test_bad_ones_leave_nothing(host: InProcessHost, api: Any, place: Path, tmp_path: Path) -> None:
    stranger, _ = keys(tmp_path, "stranger")
    foreign = made(tmp_path, stranger, "8.0", wheel(tmp_path, "8.0"))
    damaged = bundle(place, "8.1")
    damaged.write_bytes(damaged.read_bytes()[:3500])
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(b"#!/bin/sh\nrm -rf /\n" * 1000)
    for file in (foreign, damaged, rubbish):
        status, task = put(host, api, file)
        assert (status, task["status"], task["error_info"][0]) == (500, "failure", "INVALID_PATCH_WITH_LOG")
    empty = tmp_path / "empty"
    empty.touch()
    assert put(host, api, empty)[1]["error_info"] == ["INVALID_PATCH"]
    assert put(host, api, rubbish, "-H", "Transfer-Encoding: chunked")[0] == 411
    assert put(host, api, empty, "-H", f"Content-Length: {1 << 40}", "-H", "Expect:")[0] == 413
    assert (api.pool_patch.get_all(), stored(place)) == ([], [])


def test_one_at_a_time_and_none_from_who_vanishes(host: InProcessHost, api: Any, place: Path) -> None:
    task = api.task.create("upload", "")
    who = base64.b64encode(f"root:{PASSWORD}".encode()).decode()
    with secured(host) as slow:
        head = f"PUT /pool_patch_upload?task_id={task} HTTP/1.0\r\nContent-Length: 5000\r\nAuthorization: Basic {who}"
        slow.sendall(f"{head}\r\n\r\n{'x' * 1000}".encode())
        deadline = time.monotonic() + 60
        while stored(place) != [rules.UNFINISHED]:
            assert time.monotonic() < deadline
        assert put(host, api, bundle(place, "9.0"))[1]["error_info"][0] == "OTHER_OPERATION_IN_PROGRESS"
    assert ended(api, task)["status"] == "failure"
    assert stored(place) == []


def test_who_may(host: InProcessHost, place: Path) -> None:
    done = subprocess.run(
        ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "-T", bundle(place, "9.1"),
         f"{host.url}/pool_patch_upload"], capture_output=True,
    )  # fmt: skip
    assert done.stdout == b"401"
    assert stored(place) == []


def test_what_it_replaces(host: InProcessHost, api: Any, place: Path) -> None:
    file = bundle(place, "9.2", requires="9.1.*")
    done = process("patch-upload", f"file-name={file}", "-s", str(socket_of(host)))
    assert (done.returncode, done.stderr) == (0, "")
    patch = api.pool_patch.get_by_uuid(done.stdout.strip())
    (this,) = api.host.get_all()
    version = host.daemon.stack.settings.version
    expected = ["PATCH_PRECHECK_FAILED_WRONG_SERVER_VERSION", patch, version, "9.1.*"]
    for call in (api.pool_patch.precheck, api.pool_patch.apply):
        assert fails(call, patch, this) == expected
    assert fails(api.pool_patch.pool_apply, patch) == expected
    (place / "state" / "updates" / "keys" / "maker.pem").rename(place / "distrusted.pem")
    assert fails(api.pool_patch.precheck, patch, this)[0] == "INVALID_PATCH_WITH_LOG"
    (place / "distrusted.pem").rename(place / "state" / "updates" / "keys" / "maker.pem")
    api.pool_patch.destroy(patch)


@pytest.mark.slow
def test_applying(host: InProcessHost, api: Any, place: Path) -> None:
    broken = made(place, place / "maker-private.pem", "9.3", wheel(place, "9.3", "raise SystemExit(1)"))
    task = put(host, api, broken)[1]
    (patch,) = api.pool_patch.get_all()
    (this,) = api.host.get_all()
    assert fails(api.pool_patch.apply, patch, this)[0] == "PATCH_APPLY_FAILED"
    assert api.pool_patch.get_host_patches(patch) == []
    api.pool_patch.destroy(patch)
    task = put(host, api, bundle(place, "9.4"))[1]
    assert task["status"] == "success"
    (patch,) = api.pool_patch.get_all()
    assert "Successfully installed domzero-9.4" in api.pool_patch.apply(patch, this)
    (record,) = api.host_patch.get_all_records().values()
    assert (record["host"], record["pool_patch"], record["applied"], record["version"]) == (this, patch, True, "9.4")
    assert api.pool_patch.get_pool_applied(patch) is True
    (applied,) = api.host_patch.get_all()
    assert api.host.get_patches(this) == [applied]
    assert fails(api.pool_patch.apply, patch, this) == ["PATCH_ALREADY_APPLIED", patch]
    assert fails(api.host_patch.apply, applied) == ["PATCH_ALREADY_APPLIED", applied]
    assert fails(api.pool_patch.destroy, patch) == ["PATCH_IS_APPLIED"]
    assert fails(api.host_patch.destroy, applied) == ["PATCH_IS_APPLIED"]
    api.pool_patch.pool_apply(patch)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_host_goes_on_as_the_new_version_and_back_from_one_that_does_not_start(tmp_path: Path) -> None:
    private, public = keys(tmp_path)
    trust(tmp_path / "state", public)
    good = made(tmp_path, private, "0.1.99", real_wheel(tmp_path, "0.1.99"), name="good")
    fails_to_serve = f"import sys\nif '--version' not in sys.argv:\n    raise SystemExit(1)\n{HONEST}"
    bad = made(tmp_path, private, "0.2", wheel(tmp_path, "0.2", fails_to_serve), name="bad")
    with as_process(tmp_path) as running:
        api = login(running.url).xenapi
        apply(tmp_path, api, good)
        api.host.restart_agent(api.host.get_all()[0])
        assert running.process is not None
        assert running.process.stdout is not None
        pid = running.pid
        read_until_ready(running)
        api = login(running.url).xenapi
        assert (version(api), running.pid) == ("0.1.99", pid)
        apply(tmp_path, api, bad)
        api.host.restart_agent(api.host.get_all()[0])
        running.process.communicate(timeout=60)
        assert running.process.returncode == 1
        running.process = None
        running.start()
        api = login(running.url).xenapi
        assert version(api) == "0.1.99"
        patches = {record["name_label"]: record["pool_applied"] for record in api.pool_patch.get_all_records().values()}
        assert patches == {"good": True, "bad": False}
        assert [record["version"] for record in api.host_patch.get_all_records().values()] == ["0.1.99"]
        assert TAKEN_BACK.name in [record["name"] for record in api.message.get_all_records().values()]


def apply(directory: Path, api: Any, file: Path) -> None:
    socket = directory / "state" / "run" / "xapi"
    done = process("patch-upload", f"file-name={file}", "-s", str(socket))
    assert (done.returncode, done.stderr) == (0, "")
    done = process("patch-pool-apply", f"uuid={done.stdout.strip()}", "-s", str(socket))
    assert (done.returncode, done.stderr) == (0, "")


def read_until_ready(running: Any) -> None:
    for line in running.process.stdout:
        if line.startswith("domzero: ready "):
            running.url = line.removeprefix("domzero: ready ").strip()
            return
    raise AssertionError(running.process.stderr.read())


def version(api: Any) -> str:
    return str(api.host.get_software_version(api.host.get_all()[0])["domzero"])
