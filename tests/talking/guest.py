"""A whole host with a guest that talks, seen from both sides."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from domzero.host.guest_image.console import statements
from domzero.host.xenstore.local import LocalXenstore
from tests.api.harness import InProcessHost, in_process, login
from tests.host.qemu.guest import Console

BOOT = 60.0
"""Seconds that a guest under emulation may take to come up."""
MEMORY = 192 << 20
NOTHING = "OpaqueRef:NULL"


def soon(condition: Callable[[], Any], seconds: float = 30.0, interval: float = 0.01) -> Any:
    """What a condition gives as soon as that is something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(interval)
    return found


def seconds_until(condition: Callable[[], Any]) -> float:
    """How long it took until something held."""
    began = time.monotonic()
    soon(condition)
    return time.monotonic() - began


class TalkingGuest:
    """The machine, its host, and the line on which it runs what it is told."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._host = ExitStack()
        self._line = ExitStack()
        self.vm = ""
        self.begin()

    # The host

    def begin(self) -> None:
        """Start a host, which goes on with what another one has left in the directory."""
        runtime = self._directory / "run"
        self.host: InProcessHost = self._host.enter_context(
            in_process(self._directory, hypervisor="qemu", accel="tcg", network="user", runtime_dir=runtime)
        )
        self.api: Any = login(self.host.url).xenapi

    def restart_host(self) -> None:
        """End the daemon and start another one; the machine goes on."""
        self._line.close()
        self._host.close()
        self.begin()
        self.listen()

    def end(self) -> None:
        """End the machine, however it is, and the host."""
        self._line.close()
        with self._host:
            for domid in tuple(self.host.daemon.stack.machines._by_domid):
                self.host.run(self.host.daemon.stack.hypervisor.destroy(domid))

    @property
    def store(self) -> LocalXenstore:
        """The host's store, as the daemon has it."""
        store = self.host.daemon.stack.guests.xenstore
        assert isinstance(store, LocalXenstore)
        return store

    # The machine

    def make(self, kernel: Path, ramdisk: Path) -> None:
        """A machine with a disk, a card, and a second processor that it may be given."""
        place = self._directory / "state" / "guest"
        place.mkdir(exist_ok=True)
        api = self.api
        self.vm = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "talks")
        api.VM.set_PV_kernel(self.vm, str(shutil.copy(kernel, place / "kernel")))
        api.VM.set_PV_ramdisk(self.vm, str(shutil.copy(ramdisk, place / "talking")))
        api.VM.set_memory_limits(self.vm, *[str(MEMORY)] * 4)
        api.VM.set_VCPUs_max(self.vm, "2")
        api.VM.add_to_xenstore_data(self.vm, "vm-data/foo", "bar")
        api.VM.add_to_xenstore_data(self.vm, "hidden/foo", "bar")
        card = {"device": "0", "VM": self.vm, "network": api.network.get_all()[0], "MAC": "", "MTU": "1500"}
        api.VIF.create({**card, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})
        api.VM.provision(self.vm)

    @property
    def domid(self) -> int:
        return int(self.api.VM.get_domid(self.vm))

    def node(self, path: str) -> bytes | None:
        """What the store holds below the machine's directory, None where there is no such node."""
        place = f"/local/domain/{self.domid}/{path}"

        async def look() -> bytes | None:
            return self.store.read(place) if self.store.exists(place) else None

        found = self.host.run(look())
        assert found is None or isinstance(found, bytes)
        return found

    def write(self, path: str, value: bytes) -> None:
        """Ask the guest for something, as the toolstack does."""

        place = f"/local/domain/{self.domid}/{path}"

        async def write() -> None:
            self.store.write(place, value)

        self.host.run(write())

    @contextmanager
    def held_agent(self) -> Iterator[None]:
        """The agent stands still within the block, and what it has said before is recorded."""
        agent = "$(cat /run/services/domzero-guest.service)"
        self.run(f"kill -STOP {agent}")
        try:
            self.report(b"before it was held")
            yield
        finally:
            self.run(f"kill -CONT {agent}")

    def report(self, when: bytes) -> None:
        """Say in the agent's place that its report is complete, until the host has looked at what it says."""
        guests = self.host.daemon.stack.guests
        guest = guests._by_vm[self.vm]
        before = guest.heard
        self.write("data/updated", when)

        async def is_recorded() -> bool:
            return guest.heard > before and guest not in guests._spoke

        soon(lambda: self.host.run(is_recorded()))

    def metrics(self) -> dict[str, Any]:
        """The guest metrics' record; empty while there is none."""
        reference = self.api.VM.get_guest_metrics(self.vm)
        return {} if reference == NOTHING else dict(self.api.VM_guest_metrics.get_record(reference))

    def wait_until_it_talks(self) -> None:
        """Until the guest is up and its agent has told everything, its address included."""
        self.host.run(self._console.expect("GUEST UP", BOOT))
        soon(lambda: self.metrics().get("networks", {}).get("0/ip"), BOOT, 0.1)

    # Inside

    def listen(self) -> None:
        """Open the line into the present domain."""
        self._line.close()
        self._line = ExitStack()
        self._console = self._line.enter_context(self._console_of(self.domid))

    @contextmanager
    def _console_of(self, domid: int) -> Iterator[Console]:
        status = self.host.run(self.host.daemon.stack.hypervisor.status(domid))
        console = Console(status.serial_socket)
        self.host.run(console.__aenter__())
        try:
            yield console
        finally:
            self.host.run(console.__aexit__(None, None, None))

    def run(self, command: str) -> str:
        """What a command prints inside; it succeeds."""
        return str(self.host.run(self._console.run(command, BOOT))).replace("\r", "").strip()

    def eventually(self, command: str) -> str:
        """Run a command inside again and again until it succeeds; what it printed then."""
        return self.run(f"until {command}; do usleep 20000; done 2>/dev/null").rpartition("\n")[2]

    def send(self, command: str) -> None:
        """Start something inside and do not wait."""

        async def send() -> None:
            self._console.send(command)

        self.host.run(send())

    def agent_said(self) -> str:
        """The agent's log."""
        return self.run("cat /run/services/domzero-guest.service.log")

    def watches_of(self, path: str) -> int:
        """How many watches of this node the machine's programs have."""
        place = f"/local/domain/{self.domid}/{path}"

        async def count() -> int:
            return sum(watch.path == place for watch in self.store._store.watches.at(place))

        return int(self.host.run(count()))

    def ending_log(self) -> Callable[[], list[str]]:
        """What the present domain has said on its serial line, also when its files are gone."""
        console = self._console
        return lambda: statements(console.text.encode())

    def story(self) -> str:
        """What is known of the machine, for whoever reads of a failure. Nobody is asked, who may be what failed."""
        row = self.host.daemon.stack.database.record("VM", self.vm)
        state = f"{row['power_state']}, domain {row['domid']}"
        return f"{state}; on its serial line since it was opened:\n{self._console.text[-6000:]}"

    def serial_log(self, domid: int) -> list[str]:
        """The statements on the serial line of a domain that is there."""
        status = self.host.run(self.host.daemon.stack.hypervisor.status(domid))
        return statements(status.serial_log.read_bytes())


def shows(guest: TalkingGuest, address: str, is_there: bool = True) -> bool:
    """Whether the API tells an address of the guest, or no more."""
    return (address in guest.metrics()["networks"].values()) is is_there
