"""A whole host and a guest with Debian's xenstore tools: both sides of what they tell each other."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from domzero.host.xenstore.local import LocalXenstore
from tests.api.harness import InProcessHost, in_process, login
from tests.host.qemu import initramfs
from tests.host.qemu.guest import Console

TOOLS = [Path(f"/usr/bin/xenstore-{name}") for name in ("read", "write", "ls", "rm", "exists", "watch")]
AGENT = "guest-agent-operation"

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not TOOLS[0].exists(), reason="xenstore-utils is not installed"),
]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: sockets are made in it."""
    path = Path(tempfile.mkdtemp(prefix="dz-"))
    yield path
    shutil.rmtree(path)


@contextmanager
def serving(directory: Path) -> Iterator[InProcessHost]:
    runtime = directory / "run"
    with in_process(directory, hypervisor="qemu", accel="tcg", network="user", runtime_dir=runtime) as host:
        try:
            yield host
        except BaseException:  # else the machine would outlive the test
            for domid in tuple(host.daemon.stack.machines._by_domid):
                host.run(host.daemon.stack.hypervisor.destroy(domid))
            raise


def make_machine(api: Any, directory: Path) -> str:
    guest = directory / "state" / "guest"
    guest.mkdir(exist_ok=True)
    initramfs.build(guest / "tools", TOOLS)
    shutil.copy(initramfs.kernel(), guest / "kernel")
    vm = str(api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "talks"))
    api.VM.set_is_a_template(vm, False)
    api.VM.set_PV_kernel(vm, str(guest / "kernel"))
    api.VM.set_PV_ramdisk(vm, str(guest / "tools"))
    api.VM.set_PV_args(vm, "console=ttyS0 panic=-1 quiet")
    api.VM.add_to_xenstore_data(vm, "vm-data/foo", "bar")
    return vm


class Inside:
    """What runs in the guest."""

    def __init__(self, host: InProcessHost, api: Any, vm: str) -> None:
        self._host = host
        status = host.run(host.daemon.stack.hypervisor.status(int(api.VM.get_domid(vm))))
        self._console = Console(status.serial_socket)

    def __enter__(self) -> Self:
        self._host.run(self._console.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._host.run(self._console.__aexit__(None, None, None))

    def wait_until_up(self) -> None:
        self._host.run(self._console.expect("GUEST UP", 60))

    def run(self, command: str) -> str:
        return str(self._host.run(self._console.run(f"export XENSTORED_PATH=/dev/vport0p2; {command}")))

    def eventually(self, command: str) -> str:
        return self.run(f"until {command}; do usleep 50000; done 2>/dev/null").splitlines()[-1].strip()

    def send(self, command: str) -> None:
        async def send() -> None:
            self._console.send(command)

        self._host.run(send())


def soon(condition: Callable[[], Any], seconds: float = 30.0) -> float:
    """Wait until something holds; how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds
        time.sleep(0.005)
    return time.monotonic() - began


def other(api: Any, vm: str) -> dict[str, str]:
    return dict(api.VM_guest_metrics.get_other(api.VM.get_guest_metrics(vm)))


def test_a_guest_and_its_host(directory: Path) -> None:
    with serving(directory) as host:
        api = login(host.url).xenapi
        vm = make_machine(api, directory)
        api.VM.start(vm, False, False)
        with Inside(host, api, vm) as inside:
            inside.wait_until_up()
            is_told_of_itself(api, vm, inside)
            leaves_nothing_when_killed(host, api, vm, inside)
            reports(api, vm, inside)
            turns_its_remote_desktop_on(api, vm, inside)
        goes_on_as_another_domain(host, api, vm)
    with serving(directory) as host:
        api = login(host.url).xenapi
        with Inside(host, api, vm) as inside:
            assert inside.eventually("xenstore-read data/kept") == "1"
            inside.run("xenstore-write attr/eth0/ip 10.0.0.9")
            soon(lambda: networks(api, vm) == {"0/ip": "10.0.0.9"})
            shuts_down(api, vm, inside)
        assert api.VM.get_record(vm)["guest_metrics"] == "OpaqueRef:NULL"


def is_told_of_itself(api: Any, vm: str, inside: Inside) -> None:
    assert inside.eventually("xenstore-read name") == "talks"
    assert inside.run("xenstore-read vm-data/foo") == "bar"
    api.VM.add_to_xenstore_data(vm, "vm-data/later", "1")
    assert inside.eventually("xenstore-read vm-data/later") == "1"
    inside.run("! xenstore-write name other 2>/dev/null; ! xenstore-ls /local/domain/0 2>/dev/null")


def leaves_nothing_when_killed(host: InProcessHost, api: Any, vm: str, inside: Inside) -> None:
    store = host.daemon.stack.guests.xenstore
    assert isinstance(store, LocalXenstore)
    domain = store._store.domains[int(api.VM.get_domid(vm))]
    inside.run("xenstore-watch data > /dev/null 2>&1 & usleep 500000; true")
    soon(lambda: domain.watches == 1)
    inside.run("kill $(pidof xenstore-watch)")
    soon(lambda: domain.watches == 0)


def networks(api: Any, vm: str) -> dict[str, str]:
    return dict(api.VM_guest_metrics.get_networks(api.VM.get_guest_metrics(vm)))


def reports(api: Any, vm: str, inside: Inside) -> None:
    inside.run("xenstore-write data/kept 1 attr/PVAddons/MajorVersion 9 attr/PVAddons/MinorVersion 4 data/updated 1")
    soon(lambda: api.VM.get_guest_metrics(vm) != "OpaqueRef:NULL")
    taken = []
    for number in range(5):
        inside.run(f"xenstore-write attr/eth0/ip 10.0.0.{number}")
        taken.append(soon(lambda expected=f"10.0.0.{number}": networks(api, vm).get("0/ip") == expected))  # type: ignore[misc]  # a loop's value
    assert max(taken) < 1


def turns_its_remote_desktop_on(api: Any, vm: str, inside: Inside) -> None:
    inside.run("xenstore-write control/feature-ts 1 control/feature-ts2 1 data/ts 0")
    soon(lambda: other(api, vm).get("data-ts") == "0")
    assert api.VM.call_plugin(vm, AGENT, "request_rdp_on", {}) == ""
    assert inside.run("xenstore-read control/ts") == "1"
    inside.run("xenstore-rm control/ts; xenstore-rm data/ts")
    soon(lambda: "data-ts" not in other(api, vm))
    inside.run("xenstore-write data/ts 1")
    soon(lambda: other(api, vm).get("data-ts") == "1")


def goes_on_as_another_domain(host: InProcessHost, api: Any, vm: str) -> None:
    """What the guest had written is gone with the old domain; `data/kept` is said again, for the next daemon."""
    before = api.VM.get_domid(vm)
    api.VM.suspend(vm)
    assert api.VM.get_guest_metrics(vm) != "OpaqueRef:NULL"
    api.VM.resume(vm, False, False)
    with Inside(host, api, vm) as inside:
        assert inside.eventually("xenstore-read domid") == api.VM.get_domid(vm) != before
        inside.run("! xenstore-read data/kept 2>/dev/null")
        inside.run(
            "xenstore-write data/kept 1 attr/PVAddons/MajorVersion 9 attr/PVAddons/MinorVersion 4 data/updated 1"
        )


def shuts_down(api: Any, vm: str, inside: Inside) -> None:
    """As an agent does that obeys: it acknowledges, then goes. The power button would leave no acknowledgement."""
    inside.run("rm -r /etc/acpi; xenstore-write control/feature-shutdown 1")
    inside.send(
        "export XENSTORED_PATH=/dev/vport0p2; until xenstore-exists control/shutdown; do usleep 50000; done; "
        "xenstore-rm control/shutdown; poweroff -f"
    )
    api.VM.clean_shutdown(vm)
    assert api.VM.get_power_state(vm) == "Halted"
