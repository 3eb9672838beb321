"""A real guest with the agent: how soon the host knows, what its flood costs others; and a thousand guests' ports."""

from __future__ import annotations

import contextlib
import itertools
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.talking import image

from bench.client import Api
from bench.hosts import Host, host, new_machine
from bench.processes import LOAD_CORE, SERVER_CORE, pin, process, resident_bytes
from bench.report import Row, Section, Target, number, spread
from bench.xenstore import SETTLING, Client, furnish, harm, pinned, rate, read, round_of, settled, settled_write, write
from domzero.host.hypervisor.qemu.files import DomainFiles

NOTES = """Tiny Linux under TCG with the agent and Debian's Python (`tests/talking`). A change is an address that is
added to the guest's card or taken away; its time is the host's own, from sending the command on the serial line until
`event.from`, over the Unix socket, has told of guest metrics with the address, or without it: it holds the guest's
shell and `ip`, too. Beside it is what the serial line alone takes: until the guest says that the command has ended. The
flood comes from a program in the guest that writes requests to its second port without waiting for replies; beside it
is the same guest while it is idle, in turn. Of the ports, this process holds the ends that QEMU holds else, one for
each domain, and speaks through each; beside them are the same requests without any domain."""

MEMORY = 192 << 20
SOON = Target(most=0.200)
PATIENCE = 120.0
PORTS = 1_000
_tokens = itertools.count()


class Line:
    """The guest's serial line: see `tests.talking.image` for what is said on it."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(path))
        self._said = b""

    def expect(self, text: str) -> None:
        """Wait until something has been said; all up to it is forgotten."""
        while text.encode() not in self._said:
            piece = self._socket.recv(65536)
            if not piece:
                raise ConnectionError("the guest has ended")
            self._said += piece
        self._said = self._said.partition(text.encode())[2]

    def begin(self, command: str) -> str:
        """Have a command run; what is said at its end."""
        token = f"b{next(_tokens)}"
        self._socket.sendall(f"{token} {command}\n".encode())
        return f"DONE {token} 0"

    def run(self, command: str) -> None:
        """Run a command to its end."""
        self.expect(self.begin(command))

    def close(self) -> None:
        self._socket.close()


def measure(quick: bool) -> Section:
    """All of it."""
    section = Section("Guests that talk", NOTES)
    rounds, count, ports = (5, 200, 50) if quick else (200, 2000, PORTS)
    if missing := [*image.missing()]:
        section.add(Row("changes in a guest", None, "", f"takes {', '.join(missing)}"))
    else:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            _with_a_guest(section, Path(name), rounds, count)
    with tempfile.TemporaryDirectory(prefix="bench-") as name, pinned():
        for row in many_ports(Path(name), ports, min(rounds, 15), count):
            section.add(row)
    return section


def _with_a_guest(section: Section, directory: Path, rounds: int, count: int) -> None:
    kernel, ramdisk = image.make(_made(directory / "image"))
    store = directory / "xenstore"
    options = ("--accel", "tcg", "--network", "user", "--xenstore-socket", str(store))
    with host(directory, "qemu", core=None, options=options) as ours:
        api = ours.api()
        vm = _start(ours, api, kernel, ramdisk)
        line = Line(DomainFiles(ours.state / "run" / str(api("VM.get_domid", vm))).serial_socket)
        try:
            line.expect("GUEST UP")
            _until_told(api, vm)
            for row in changes(api, vm, line, rounds):
                section.add(row)
            section.add(flooded(store, line, max(3, rounds // 20), count))
        finally:
            line.close()
            api("VM.hard_shutdown", vm)


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _start(ours: Host, api: Api, kernel: Path, ramdisk: Path) -> str:
    vm = new_machine(api, "talks", cards=1)
    place = ours.state / "guest"
    place.mkdir(exist_ok=True)
    api("VM.set_PV_kernel", vm, str(shutil.copy(kernel, place / "kernel")))
    api("VM.set_PV_ramdisk", vm, str(shutil.copy(ramdisk, place / "talking")))
    api("VM.set_memory_limits", vm, *[str(MEMORY)] * 4)
    api("VM.start", vm, False, False)
    return vm


def _until_told(api: Api, vm: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while "0/ip" not in _networks(api, vm):
        if time.monotonic() > deadline:
            raise TimeoutError("the guest tells no address")
        time.sleep(0.1)


def _networks(api: Api, vm: str) -> dict[str, str]:
    metrics = api("VM.get_guest_metrics", vm)
    return {} if metrics == "OpaqueRef:NULL" else dict(api("VM_guest_metrics.get_networks", metrics))


def changes(api: Api, vm: str, line: Line, rounds: int) -> Iterator[Row]:
    """An address comes and goes; and what the guest takes to run the command."""
    topic = f"VM_guest_metrics/{api('VM.get_guest_metrics', vm)}"
    token = api("event.from", [topic], "", 0.0)["token"]
    until_told, until_done = [], []
    for number_of in range(rounds):
        address, verb = f"192.0.2.{1 + number_of // 2 % 250}", ("add", "del")[number_of % 2]
        begin = time.perf_counter()
        ended = line.begin(f"ip address {verb} {address}/32 dev eth0")
        while True:
            batch: dict[str, Any] = api("event.from", [topic], token, 30.0)
            token = batch["token"]
            if any((address in event["snapshot"]["networks"].values()) is (verb == "add") for event in batch["events"]):
                break
        until_told.append(time.perf_counter() - begin)
        line.expect(ended)
        begin = time.perf_counter()
        line.run("ip address show dev eth0 >/dev/null")
        until_done.append(time.perf_counter() - begin)
        time.sleep(0.3)  # a look at a guest comes at most each tenth of a second, and one at addresses each fifth
    ours, alone = spread(until_told), spread(until_done)
    said = f"{ours.p99 * 1e3:.0f} ms; {ours.text('ms', 1e3)}"
    what = "99th percentile from a change in the guest to the field, in seconds"
    yield Row(what, ours.p99, said, f"{alone.text('ms', 1e3)} for such a command alone", SOON)


def flooded(store: Path, line: Line, rounds: int, count: int) -> Row:
    """What the host has of its store while a guest floods, and while it does not."""
    client = Client(store)
    calm, harmed = [], []
    for _ in range(rounds):
        calm.append(settled_write(client, count))
        line.run("flood >/tmp/flood & until [ -s /tmp/flood ]; do usleep 20000; done")
        harmed.append(settled_write(client, count))
        line.run("kill $! && wait $! 2>/dev/null; rm /tmp/flood")
    return harm("a write of the host while a real guest floods, to one while it is idle", harmed, calm)


def many_ports(directory: Path, domains: int, rounds: int, count: int) -> Iterator[Row]:
    """Many guests' ports are open, and somebody speaks through each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    command = [sys.executable, "-m", "bench.guest_ports", str(directory), str(domains)]
    with _listening(directory, domains) as listeners, process(command) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        pin(child.pid, SERVER_CORE)
        client = Client(directory / "host")
        furnish(client)
        alone = spread([rate(client, read, count) for _ in range(rounds)])
        before = resident_bytes(child.pid)
        child.stdin.write("\n")
        child.stdin.flush()
        guests = [settled(client, listener.accept()[0], domid) for domid, listener in enumerate(listeners, start=1)]
        grown = (resident_bytes(child.pid) - before) / domains
        many = spread([rate(client, read, count) for _ in range(rounds)])
        beside = f"{alone.text('/s')} with none; {grown / 1024:.1f} KiB each"
        yield Row(f"read with {domains} guests' ports open", many.median / alone.median, many.text("/s"), beside)
        per_second = domains / spread([round_of(guests) for _ in range(rounds)]).median
        one = rate(client, write, count)
        what = f"writes through {domains} ports in turn, to those of one client of the host"
        yield Row(what, per_second / one, f"{number(per_second)}/s", f"{number(one)}/s")
        guests.pop()[0].socket.close()
        yield _one_floods(listeners[-1], guests, rounds)


def _one_floods(listener: socket.socket, others: list[tuple[Client, bytes]], rounds: int) -> Row:
    """What a write of every other guest takes while the one at this socket floods, and while it does not, in turn."""
    calm, harmed = [], []
    for _ in range(rounds):
        port, _ = listener.accept()
        port.setblocking(True)
        time.sleep(SETTLING)
        calm.append(round_of(others) / len(others))
        command = [sys.executable, "-m", "bench.xenstore_flood", "asks", str(port.fileno())]
        with port, process(command, keep=[port.fileno()]) as child:
            assert child.stdout is not None
            child.stdout.readline()
            pin(child.pid, LOAD_CORE)
            time.sleep(SETTLING)
            harmed.append(round_of(others) / len(others))
    return harm(f"a write of each of {len(others)} guests while another one floods, to one without", harmed, calm)


@contextlib.contextmanager
def _listening(directory: Path, domains: int) -> Iterator[list[socket.socket]]:
    """Sockets that listen as QEMU does, one for each domain."""
    opened = []
    try:
        for domid in range(1, domains + 1):
            opened.append(socket.socket(socket.AF_UNIX))
            opened[-1].bind(str(directory / str(domid)))
            opened[-1].listen(1)
        yield opened
    finally:
        for listener in opened:
            listener.close()
