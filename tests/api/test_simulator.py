"""The simulator as a product: time and steps of a served host, moved from outside."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from domzero.cli.main import main
from domzero.client.local import LocalError, request
from tests.api.harness import InProcessHost

PATH = "/local/simulator"


@pytest.fixture
def socket(host: InProcessHost) -> Path:
    return Path(host.settings.state_dir) / "run" / "xapi"


def status_of(api: Any, task: str) -> str:
    deadline = time.monotonic() + 30
    while (status := api.task.get_status(task)) == "pending":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return str(status)


def test_management_is_where_clients_are_served(api: Any) -> None:
    (host,) = api.host.get_all()
    found = [ref for ref, record in api.PIF.get_all_records().items() if record["management"]]
    assert found == [api.host.get_management_interface(host)]
    record = api.PIF.get_record(found[0])
    assert (record["device"], record["physical"], record["IP"]) == ("eth0", True, api.host.get_address(host))
    assert api.network.get_bridge(record["network"]) == "xenbr0"


def wait_until_held(socket: Path) -> Any:
    """Until a verb waits to be stepped: those that do."""
    deadline = time.monotonic() + 30
    while not (waiting := request(socket, "GET", PATH)["waiting"]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return waiting


def stop_stepwise(api: Any, machine: str, socket: Path) -> None:
    """Halt a machine whose verbs are stepped."""
    task = api.Async.VM.hard_shutdown(machine)
    while api.task.get_status(task) == "pending":
        request(socket, "POST", PATH, {"steps": 1})
        time.sleep(0.01)
    api.task.destroy(task)


def test_time_is_set_forward(api: Any, machine: str, socket: Path) -> None:
    """What takes an hour is over when the hour is."""
    api.VM.add_to_other_config(machine, "sim:delay-start", "3600")
    api.VM.add_to_other_config(machine, "sim:step", "true")
    task = api.Async.VM.start(machine, False, False)
    wait_until_held(socket)
    # From here on it lasts an hour.
    request(socket, "POST", PATH, {"steps": 1})
    assert api.task.get_status(task) == "pending"
    request(socket, "POST", PATH, {"advance": 3600})
    assert status_of(api, task) == "success"
    api.task.destroy(task)
    stop_stepwise(api, machine, socket)


def test_a_guest_that_ends_tomorrow(api: Any, machine: str, socket: Path) -> None:
    api.VM.add_to_other_config(machine, "sim:shutdown-after", "86400")
    api.VM.start(machine, False, False)
    token = api.event_from([f"VM/{machine}"], "", 0.0)["token"]
    request(socket, "POST", PATH, {"advance": 86_401})
    while api.VM.get_power_state(machine) != "Halted":
        batch = api.event_from([f"VM/{machine}"], token, 10.0)
        assert batch["events"], "the guest did not end"
        token = batch["token"]


def test_single_steps(api: Any, machine: str, socket: Path) -> None:
    api.VM.add_to_other_config(machine, "sim:step", "true")
    task = api.Async.VM.start(machine, False, False)
    waiting = wait_until_held(socket)
    assert [verb["verb"] for verb in waiting] == ["start"]
    answer = request(socket, "POST", PATH, {"steps": 5})
    assert answer["stepped"] == waiting
    assert answer["waiting"] == []
    assert status_of(api, task) == "success"
    api.task.destroy(task)
    stop_stepwise(api, machine, socket)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"advance": -1},
        {"advance": "1"},
        {"advance": True},
        {"steps": 0},
        {"steps": 1.5},
        {"advance": 1, "steps": 1},
    ],
)
def test_unfit_requests(socket: Path, content: dict[str, Any]) -> None:
    with pytest.raises(LocalError, match="400"):
        request(socket, "POST", PATH, content)


def test_the_command(socket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulator", "--socket", str(socket), "show"]) == 0
    before = capsys.readouterr().out
    assert main(["simulator", "--socket", str(socket), "advance", "86400"]) == 0
    assert capsys.readouterr().out > before
    assert main(["simulator", "--socket", str(socket), "step", "2"]) == 0
    assert main(["simulator", "--socket", str(socket.with_name("nobody")), "show"]) == 1
    assert "no domzero answers" in capsys.readouterr().err
