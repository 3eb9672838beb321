"""How a daemon ends: on a signal, on a call, and when something inside it fails; and how it begins anew in place."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domzero import service
from domzero.daemon import BackgroundError, _background
from tests.api.harness import login, password_file, plain_proxy
from tests.api.viewer import Stream, tls
from tests.front.toy import request, value_of
from tests.service.daemons import COMMAND, PATIENCE, SIMULATED, command, daemon, environment, service_manager


def with_password(directory: Path) -> tuple[str, str]:
    return "--root-password-file", str(password_file(directory))


def machine(api: Any, **faults: str) -> Any:
    """A halted machine with these faults (`delay_start="1"`)."""
    vm = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "a machine")
    for name, value in faults.items():
        api.VM.add_to_other_config(vm, "sim:" + name.replace("_", "-"), value)
    api.VM.provision(vm)
    return vm


def in_background(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run a call in a thread; what it returned or raised will be in the list."""
    outcome: list[Any] = []

    def body() -> None:
        try:
            outcome.append(call())
        except Exception as problem:  # noqa: BLE001 - looked at by the test
            outcome.append(problem)

    thread = threading.Thread(target=body)
    thread.start()
    return thread, outcome


def wait_for_operation(api: Any, vm: Any, operation: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while operation not in api.VM.get_current_operations(vm).values():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_under_way_is_answered(tmp_path: Path, number: signal.Signals) -> None:
    with daemon(tmp_path, *with_password(tmp_path)) as running:
        url = running.start()
        api = login(url).xenapi
        vm = machine(api, delay_start="2")
        starter = login(url).xenapi
        thread, outcome = in_background(lambda: starter.VM.start(vm, False, False))
        wait_for_operation(api, vm, "start")
        running.signal(number)
        assert running.wait() == 0
        thread.join(PATIENCE)
        assert outcome == [""]
        assert "stopping" in running.log
        assert login(running.start()).xenapi.VM.get_power_state(vm) == "Running"


@pytest.mark.slow
def test_listeners_for_events_do_not_hold_a_stop_up(tmp_path: Path) -> None:
    """Every console has such a call open; a stop must not last as long as that call's patience."""
    with daemon(tmp_path, *with_password(tmp_path)) as running:
        url = running.start()
        waiting = login(url)
        token = waiting.xenapi.event_from(["network"], "", 1.0)["token"]
        with tls(url) as connection:
            listener = Stream(connection)
            listener.send(request("event.from", waiting.handle, ["network"], token, 30.0))
            # Who comes later is answered: what was sent before has been read.
            login(url)
            begin = time.monotonic()
            assert running.stop() == 0
            assert time.monotonic() - begin < 20
            listener.until(b"\r\n\r\n")
            assert value_of(listener.rest())["events"] == []


@pytest.mark.slow
def test_a_signal_before_it_serves(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        running.launch()
        running.wait_until(lambda: (tmp_path / "state").exists())
        running.signal(signal.SIGINT)
        assert running.wait() in (0, 130, -signal.SIGINT)
        assert "Traceback" not in running.complained


def test_a_signal_while_the_loop_is_made_waits_until_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = asyncio.new_event_loop, []

    def interrupted() -> asyncio.AbstractEventLoop:
        os.kill(os.getpid(), signal.SIGINT)
        made.append(make())
        return made[0]

    monkeypatch.setattr(asyncio, "new_event_loop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        service.event_loop()
    made[0].close()


@pytest.mark.slow
def test_shutdown_agent_answers_and_ends(tmp_path: Path) -> None:
    with daemon(tmp_path, *with_password(tmp_path)) as running:
        assert login(running.start()).xenapi.host.shutdown_agent() == ""
        assert running.wait() == 0


@pytest.mark.slow
def test_restart_agent_begins_anew_in_the_same_process(tmp_path: Path) -> None:
    """Machines run on, sessions stay, and the service manager does not take it for an end."""
    manager = tmp_path / "notify"
    with (
        service_manager(manager) as told,
        daemon(tmp_path, *with_password(tmp_path), NOTIFY_SOCKET=str(manager)) as running,
    ):
        url = running.start()
        session = login(url)
        api, pid = session.xenapi, running.pid
        vm = machine(api)
        api.VM.start(vm, False, False)
        before = api.VM.get_record(vm)
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        assert told.recv(100) == b"READY=1"
        api.host.restart_agent(api.host.get_all()[0])
        assert running.start(times=2) == url
        again = plain_proxy(url)
        record = again.VM.get_record(session.handle, vm)["Value"]
        assert (record["power_state"], record["domid"]) == ("Running", before["domid"])
        assert running.pid == pid
        assert [login(url).xenapi.VM.get_power_state(vm) for _ in range(3)] == ["Running"] * 3
        running.wait_until(lambda: abs(len(list(Path(f"/proc/{pid}/fd").iterdir())) - descriptors) < 5)
        states = [told.recv(100), told.recv(100)]
        assert states[1] == b"READY=1"
        assert states[0].startswith(b"RELOADING=1")
        assert running.stop() == 0


@pytest.mark.slow
def test_nobody_reads_what_it_says(tmp_path: Path) -> None:
    """A script that took the address from a pipe may close it; the daemon goes on, and begins anew."""
    argv = [*COMMAND, "serve", *SIMULATED, "--state-dir", str(tmp_path / "state"), *with_password(tmp_path)]
    with (tmp_path / "stderr").open("wb") as errors:
        process = subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        url = next(line for line in process.stdout if "ready" in line).split()[-1]
        process.stdout.close()
        api = login(url).xenapi
        api.host.restart_agent(api.host.get_all()[0])
        deadline = time.monotonic() + PATIENCE
        while (tmp_path / "state/log/domzero.log").read_text().count(f" serves {url}") < 2:
            assert process.poll() is None, (tmp_path / "stderr").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        ended = command("user", "--socket", tmp_path / "state/run/xapi", "list")
        assert ended.returncode == 0, ended.stderr
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.slow
def test_what_never_ends_is_given_up(tmp_path: Path) -> None:
    """A start that waits for a step nobody makes: the daemon ends, and the next one finds nothing of it."""
    with daemon(tmp_path, *with_password(tmp_path)) as running:
        session = login(running.start())
        api = session.xenapi
        vm = machine(api, step="true")
        task = api.Async.VM.start(vm, False, False)
        wait_for_operation(api, vm, "start")
        begin = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - begin < 20
        assert "Traceback" not in running.complained
        again = login(running.start()).xenapi
        assert again.VM.get_power_state(vm) == "Halted"
        assert again.VM.get_current_operations(vm) == {}
        assert "start" in again.VM.get_allowed_operations(vm)
        assert again.task.get_status(task) in ("cancelled", "failure")


async def test_a_background_job_that_fails_stops_the_daemon(caplog: pytest.LogCaptureFixture) -> None:
    stopping = asyncio.Event()

    async def goes_on() -> None:
        await asyncio.Event().wait()

    async def fails() -> None:
        await asyncio.sleep(0)
        raise RuntimeError("the ground is gone")

    with pytest.raises(BackgroundError, match="the ground is gone"):
        async with asyncio.timeout(5), _background(stopping, goes_on(), fails()):
            await stopping.wait()
    assert "Traceback" in caplog.text


async def test_background_jobs_end_with_the_daemon() -> None:
    stopping, ended = asyncio.Event(), asyncio.Event()

    async def goes_on() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with _background(stopping, goes_on()):
        await asyncio.sleep(0)
    assert ended.is_set()
