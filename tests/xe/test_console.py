"""`xe console` on real terminals: what a person sees and types."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.api.harness import PASSWORD, InProcessHost, login
from tests.xe.terminal import ROOT, port_of, printed, raw, refused, socket_of

ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "HOME": "/nonexistent"}
PATIENCE = 20.0


@dataclass
class Person:
    """Somebody at a terminal that `xe` runs on; `setsid` makes it the controlling one, so that keys have signals."""

    arguments: tuple[str, ...]
    seen: bytes = b""
    screen: int = field(init=False)
    keyboard: int = field(init=False)

    def __post_init__(self) -> None:
        self.screen, self.keyboard = pty.openpty()
        command = ["setsid", "--ctty", "--wait", sys.executable, "-m", "domzero.client.xe", "console", *self.arguments]
        self.process = subprocess.Popen(
            command, stdin=self.keyboard, stdout=self.keyboard, stderr=self.keyboard, env=ENVIRONMENT
        )

    def sees(self, mark: bytes) -> None:
        """Wait until something stands on the screen that has not been seen before."""
        deadline = time.monotonic() + PATIENCE
        while mark not in self.seen:
            ready, _, _ = select.select([self.screen], [], [], max(0, deadline - time.monotonic()))
            assert ready, self.seen
            self.seen += os.read(self.screen, 4096)
        self.seen = self.seen.partition(mark)[2]

    def types(self, keys: bytes) -> None:
        os.write(self.screen, keys)

    def leaves(self) -> int:
        """Press Ctrl-]; the exit code."""
        self.types(b"\x1d")
        return self.process.wait(PATIENCE)

    @property
    def is_cooked(self) -> bool:
        """Whether lines are edited and keys have signals, as where a person works."""
        flags = termios.tcgetattr(self.keyboard)[3]
        cooked = termios.ICANON | termios.ECHO | termios.ISIG
        return bool(flags & cooked == cooked)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.screen)
        os.close(self.keyboard)


@pytest.fixture
def sits() -> Iterator[Callable[..., Person]]:
    people: list[Person] = []

    def sits(*arguments: str) -> Person:
        people.append(Person(arguments))
        return people[-1]

    yield sits
    for person in people:
        person.close()


@pytest.mark.parametrize("tls", [False, True])
def test_every_key_goes_to_the_machine_but_one(
    host: InProcessHost, machine: str, sits: Callable[..., Person], tls: bool
) -> None:
    printed(host, "vm-start", f"uuid={machine}")
    way = ("-s", "127.0.0.1", "-p", str(port_of(host)), "-u", "root", "-pw", PASSWORD)
    person = sits(f"uuid={machine}", *(way if tls else ("-s", str(socket_of(host)))))
    person.sees(b"Ctrl-] leaves the console.\r\n")
    person.sees(f"simulated machine {machine}\r\n".encode())
    assert not person.is_cooked
    # An interrupt, the end of a file, a stop, a half line: the machine gets all of it, at once, and echoes it.
    person.types(b"\x03\x04\x1a\x13half")
    person.sees(b"\x03\x04\x1a\x13half")
    person.types(b"\r")
    person.sees(b"\r\n")
    assert person.leaves() == 0
    assert person.is_cooked


def test_what_is_typed_before_leaving_arrives(host: InProcessHost, machine: str, sits: Callable[..., Person]) -> None:
    printed(host, "vm-start", f"uuid={machine}")
    person, other = (sits(f"uuid={machine}", "-s", str(socket_of(host))) for _ in range(2))
    for each in (person, other):
        each.sees(f"simulated machine {machine}\r\n".encode())
    person.types(b"good bye\x1dnot this")
    assert person.process.wait(PATIENCE) == 0
    other.types(b".")
    other.sees(b"good bye.")


def test_the_terminal_is_as_before_when_the_machine_ends(
    host: InProcessHost, machine: str, sits: Callable[..., Person]
) -> None:
    printed(host, "vm-start", f"uuid={machine}")
    person = sits(f"uuid={machine}", "-s", str(socket_of(host)))
    person.sees(f"simulated machine {machine}\r\n".encode())
    printed(host, "vm-shutdown", f"uuid={machine}", "--force")
    assert person.process.wait(PATIENCE) == 0
    assert person.is_cooked


def test_the_host_itself_by_its_uuid_or_where_nothing_else_is(
    host: InProcessHost, machine: str, sits: Callable[..., Person]
) -> None:
    uuid = printed(host, "vm-list", "is-control-domain=true", "--minimal").strip()
    person = sits(f"uuid={uuid}", "-s", str(socket_of(host)))
    person.sees(b"simulated host\r\n")
    assert person.leaves() == 0
    printed(host, "vm-start", f"uuid={machine}")
    by_state = sits("power-state=running", "-s", str(socket_of(host)))
    by_state.sees(f"simulated machine {machine}\r\n".encode())
    assert by_state.leaves() == 0


def test_the_host_itself_is_nothing_for_those_who_may_only_run_machines(
    host: InProcessHost, sits: Callable[..., Person]
) -> None:
    host.run(host.daemon.engine.users.add("operator", "a password", "vm-operator"))
    uuid = printed(host, "vm-list", "is-control-domain=true", "--minimal").strip()
    where = ("-s", "127.0.0.1", "-p", str(port_of(host)), "-u", "operator", "-pw", "a password")
    person = sits(f"uuid={uuid}", *where)
    assert person.process.wait(PATIENCE) == 1
    person.sees(b"403")
    assert person.is_cooked


def test_consoles_that_are_not_there(host: InProcessHost, machine: str) -> None:
    said = raw(host, "console", f"uuid={machine}")
    assert said.err == "Error: The machine has no text console; only a running one has\n"
    assert refused(host, "console", "vm=nobody") == "Error: No matching VMs found\n"


def test_no_command_but_this_means_the_host_itself(host: InProcessHost) -> None:
    uuid = printed(host, "vm-list", "is-control-domain=true", "--minimal").strip()
    assert refused(host, "vm-shutdown", f"uuid={uuid}", "--force") == "Error: No matching VMs found\n"
    assert login(host.url).xenapi.VM.get_power_state(login(host.url).xenapi.VM.get_by_uuid(uuid)) == "Running"
