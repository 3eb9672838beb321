"""xenstore: requests a second and how soon a watch is told, with many domains, and with one that floods."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.processes import LOAD_CORE, SERVER_CORE, TWO_CORES, pin, process, resident_bytes, server
from bench.report import Row, Section, Spread, Target, number, spread
from bench.xenstored import MissingError, xenstored

NOTES = """One client that waits for each reply, on the host's socket; the tree has the homes of 100 domains. Beside it
Debian's own xenstored (C), with what it asks the hypervisor answered by a stand-in (`bench/xenstored_alone.c`), else an
asyncio echo of the same bytes. A change is told from sending the write until another connection has the event. The
flood is a domain that asks without a pause, or writes where it watches a hundred times, and has used up what it had
saved; beside it are the same requests of the host without it."""

DIRECTORY, READ, WATCH, BEGIN, END, WRITE, PERMISSIONS = 1, 2, 4, 6, 7, 11, 14
DOMAINS = 1_000
HOMES = 100
PATH = b"/local/domain/5/data/updated\0"
HEADER = struct.Struct("=IIII")
UNHARMED = Target(most=1.10)
SETTLING = 1.0
"""Seconds until a domain that floods has used up what it had saved."""
PATIENCE = 10.0


class Client:
    """A connection that waits for each reply."""

    def __init__(self, path: Path | socket.socket) -> None:
        """On a socket that is connected, or connects to one."""
        if isinstance(path, socket.socket):
            self.socket = path
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(str(path))
        self.socket.settimeout(PATIENCE)
        self._data = b""

    def ask(self, operation: int, payload: bytes, transaction: int = 0) -> bytes:
        """A reply's payload, whatever it says."""
        self.send(operation, payload, transaction)
        return self.message()

    def send(self, operation: int, payload: bytes, transaction: int = 0) -> None:
        self.socket.sendall(HEADER.pack(operation, 1, transaction, len(payload)) + payload)

    def message(self) -> bytes:
        """The payload of the next message."""
        while len(self._data) < 16 or len(self._data) < 16 + HEADER.unpack_from(self._data)[3]:
            piece = self.socket.recv(65536)
            if not piece:
                raise ConnectionError("the store ended")
            self._data += piece
        end = 16 + HEADER.unpack_from(self._data)[3]
        payload, self._data = self._data[16:end], self._data[end:]
        return payload


def measure(quick: bool) -> Section:
    """All of it."""
    section = Section("xenstore", NOTES)
    rounds, count, domains = (3, 200, 50) if quick else (15, 2000, DOMAINS)
    with tempfile.TemporaryDirectory(prefix="bench-") as name, pinned():
        directory = Path(name)
        with serving(directory / "ours", HOMES) as (_, ours), beside(directory / "theirs", ours) as (other, theirs):
            for row in against(Path(ours, "host"), theirs, other, rounds, count):
                section.add(row)
        for row in crowded(directory / "crowd", domains, rounds, count):
            section.add(row)
        for kind in ("asks", "watches"):
            section.add(flooded(directory / kind, kind, rounds, count))
    return section


def against(ours: Path, theirs: Path, other: str, rounds: int, count: int) -> Iterator[Row]:
    """The same requests to both, in turn."""
    clients = (Client(ours), Client(theirs))
    for client in clients:
        furnish(client)
    for what, work in (("read", read), ("write", write), ("directory of 20", listing), ("transaction", transact)):
        if other == "echo" and what == "transaction":
            continue
        mine, beside = in_turn([lambda c=client, w=work: rate(c, w, count) for client in clients], rounds)  # type: ignore[misc]
        ratio = mine.median / beside.median
        yield Row(f"{what}, beside {other}", ratio, mine.text("/s"), beside.text("/s"))
    if other == "echo":
        return
    watchers = (watcher(ours), watcher(theirs))
    mine, beside = in_turn(
        [lambda c=c, w=w: told(c, w, count // 4) for c, w in zip(clients, watchers, strict=True)],  # type: ignore[misc]
        rounds,
    )
    yield latency(f"a change is told, beside {other}", mine, beside)


def crowded(directory: Path, domains: int, rounds: int, count: int) -> Iterator[Row]:
    """Many domains are connected, each with a home and a watch."""
    with serving(directory, domains) as (pid, _):
        host = Client(directory / "host")
        furnish(host)
        alone = [rate(host, read, count) for _ in range(rounds)]
        before = resident_bytes(pid)
        guests = [settled(host, directory / str(domid), domid) for domid in range(1, domains + 1)]
        grown = (resident_bytes(pid) - before) / domains
        many = spread([rate(host, read, count) for _ in range(rounds)])
        ratio = many.median / spread(alone).median
        beside = f"{spread(alone).text('/s')} with none; {grown / 1024:.1f} KiB each"
        yield Row(f"read with {domains} domains connected", ratio, many.text("/s"), beside)
        times = spread([round_of(guests) for _ in range(rounds)])
        per_second = domains / times.median
        one = rate(host, write, count)
        what = f"writes of {domains} domains in turn, to those of one client"
        yield Row(what, per_second / one, f"{number(per_second)}/s", f"{number(one)}/s")


def flooded(directory: Path, kind: str, rounds: int, count: int) -> Row:
    """What others have while one domain floods, and while it does not, in turn."""
    with serving(directory, 2) as _:
        host = Client(directory / "host")
        furnish(host)
        settled(host, directory / "1", 1)
        calm, harmed = [], []
        for _ in range(rounds):
            calm.append(settled_write(host, count))
            with process([sys.executable, "-m", "bench.xenstore_flood", kind, str(directory / "1")]) as child:
                assert child.stdout is not None
                child.stdout.readline()
                if TWO_CORES:
                    pin(child.pid, LOAD_CORE)
                harmed.append(settled_write(host, count))
        return harm(f"a write of the host while a domain floods ({kind}), to one without", harmed, calm)


def settled_write(client: Client, count: int) -> float:
    """Seconds of a write, when what began before has settled and this process has been woken."""
    time.sleep(SETTLING)
    rate(client, write, count // 4)
    return 1 / rate(client, write, count)


def harm(what: str, harmed: list[float], calm: list[float]) -> Row:
    """What a flood costs others: the median of the ratios of each round, as what disturbs a machine lasts longer."""
    ratio = statistics.median(one / other for one, other in zip(harmed, calm, strict=True))
    ours, beside = spread(harmed), spread(calm)
    return Row(what, ratio, ours.text("µs", 1e6), beside.text("µs", 1e6), UNHARMED)


def latency(what: str, ours: Spread, beside: Spread) -> Row:
    return Row(what, ours.median / beside.median, ours.text("µs", 1e6), beside.text("µs", 1e6))


@contextlib.contextmanager
def serving(directory: Path, domains: int) -> Iterator[tuple[int, Path]]:
    """Our store: its process and the directory of its sockets."""
    directory.mkdir()
    with server("bench.xenstore_server", directory, str(domains)) as (pid, _):
        yield pid, directory


@contextlib.contextmanager
def beside(directory: Path, ours: Path) -> Iterator[tuple[str, Path]]:
    """What is measured in turn with ours: its name and its socket."""
    directory.mkdir()
    with contextlib.ExitStack() as stack:
        try:
            pid, path = stack.enter_context(xenstored(directory))
        except MissingError as error:
            print(f"no xenstored: {error}", flush=True)
            yield "echo", ours / "echo"
        else:
            pin(pid, SERVER_CORE)
            yield "xenstored", path


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Measure from the other processor."""
    before = os.sched_getaffinity(0)
    if TWO_CORES:
        os.sched_setaffinity(0, {LOAD_CORE})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def furnish(client: Client) -> None:
    """Homes of domains, with twenty nodes each."""
    for domid in range(HOMES):
        for node in range(20):
            client.ask(WRITE, b"/local/domain/%d/data/%d\0value" % (domid, node))
    client.ask(WRITE, PATH + b"1")


def settled(host: Client, path: Path | socket.socket, domid: int) -> tuple[Client, bytes]:
    """A domain that is connected, with a home of its own and a watch on it; and what it writes."""
    home = b"/local/domain/%d\0" % domid
    host.ask(WRITE, home)
    host.ask(PERMISSIONS, home + b"n%d\0" % domid)
    guest = Client(path)
    guest.ask(WATCH, b"control\0token\0")
    guest.message()
    return guest, b"data/updated\0" + b"1"


def round_of(guests: list[tuple[Client, bytes]]) -> float:
    """Seconds until each guest's write was answered."""
    begin = time.perf_counter()
    for guest, payload in guests:
        guest.ask(WRITE, payload)
    return time.perf_counter() - begin


def watcher(path: Path) -> Client:
    """A connection that watches what is written."""
    client = Client(path)
    client.ask(WATCH, b"/local/domain/5\0token\0")
    client.message()
    return client


def told(client: Client, watching: Client, count: int) -> float:
    """Seconds from sending a write until the watcher has its event."""
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        client.send(WRITE, PATH + b"2")
        watching.message()
        times.append(time.perf_counter() - begin)
        client.message()
    return spread(times).median


def read(client: Client) -> None:
    client.ask(READ, PATH)


def write(client: Client) -> None:
    client.ask(WRITE, PATH + b"12345")


def listing(client: Client) -> None:
    client.ask(DIRECTORY, b"/local/domain/7/data\0")


def transact(client: Client) -> None:
    begun = int(client.ask(BEGIN, b"\0")[:-1])
    client.ask(READ, PATH, begun)
    client.ask(WRITE, PATH + b"3", begun)
    client.ask(END, b"T\0", begun)


def rate(client: Client, work: Callable[[Client], None], count: int) -> float:
    """How often a second."""
    begin = time.perf_counter()
    for _ in range(count):
        work(client)
    return count / (time.perf_counter() - begin)


def in_turn(works: list[Callable[[], float]], rounds: int) -> list[Spread]:
    """What each gives, the rounds of all in turn."""
    values: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, found in zip(works, values, strict=True):
            found.append(work())
    return [spread(found) for found in values]
