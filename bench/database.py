"""Measures the object database alone, with the real datamodel: commits, memory, start-up, latency of events.

    python -m bench.database [--machines N]

Prints a Markdown table. Ratios within one run mean more than absolute figures.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from domzero.datamodel.graph import GRAPH
from domzero.engine.database import Database
from domzero.engine.events import Events
from domzero.host.clock import SystemClock
from domzero.idl.types import Ref

PAGE = resource.getpagesize()


def rss() -> int:
    """Bytes of memory in use by this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


SETTINGS: dict[str, Any] = {
    "power_state": "Running",
    "allowed_operations": ("clean_shutdown", "hard_shutdown", "pause", "suspend", "snapshot", "checkpoint"),
    "memory_static_max": 4 << 30,
    "memory_dynamic_max": 4 << 30,
    "memory_dynamic_min": 4 << 30,
    "memory_static_min": 1 << 30,
    "VCPUs_max": 2,
    "VCPUs_at_startup": 2,
    "actions_after_crash": "restart",
    "HVM_boot_policy": "BIOS order",
    "HVM_boot_params": {"order": "cdn", "firmware": "uefi"},
    "platform": {"acpi": "1", "apic": "true", "pae": "true", "nx": "true", "viridian": "false", "vga": "std"},
    "tags": ("web",),
    "recommendations": "<restrictions><restriction field='memory-static-max' max='137438953472'/></restrictions>",
}


def add_machine(database: Database, number: int, host: Ref, network: Ref, sr: Ref) -> Ref:
    """A VM with a disk, a network interface and metrics, with settings as installers leave them."""
    own = {
        "name_label": f"machine {number}",
        "name_description": f"Made for measuring, number {number}",
        "other_config": {"base_template_name": "Debian 12", "mac_seed": f"seed {number}", "install-methods": "cdrom"},
        "xenstore_data": {"vm-data": "", "vm-data/number": str(number)},
        "resident_on": host,
        "affinity": host,
    }
    mac = f"02:00:00:00:{number // 256 % 256:02x}:{number % 256:02x}"
    measured = {"memory_actual": 4 << 30, "VCPUs_number": 2, "VCPUs_utilisation": {0: 0.1, 1: 0.2}}
    with database.transaction() as transaction:
        vm = transaction.create("VM", SETTINGS | own | {"metrics": transaction.create("VM_metrics", measured)})
        vdi = transaction.create("VDI", {"name_label": f"disk of {number}", "SR": sr, "virtual_size": 20 << 30})
        vbd = {"VM": vm, "VDI": vdi, "userdevice": "0", "metrics": transaction.create("VBD_metrics", {})}
        transaction.create("VBD", vbd)
        vif = {"VM": vm, "network": network, "device": "0", "MAC": mac, "MTU": 1500}
        transaction.create("VIF", vif | {"metrics": transaction.create("VIF_metrics", {})})
    return vm


def add_pool(database: Database) -> tuple[Ref, Ref, Ref]:
    """A host, a network and an SR to refer to."""
    with database.transaction() as transaction:
        host = transaction.create("host", {"name_label": "host"})
        network = transaction.create("network", {"name_label": "network"})
        return host, network, transaction.create("SR", {"name_label": "disks"})


def bare_commits(path: Path, seconds: float, payload: str) -> float:
    """Commits per second of one-row updates by sqlite3 alone, one after the other."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)")
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        count += 1
        connection.execute("INSERT OR REPLACE INTO t VALUES (1, ?)", (f"{count}{payload}",))
    connection.close()
    return count / seconds


async def commits(database: Database, vms: list[Ref], writers: int, seconds: float) -> float:
    """Durable one-field commits per second by that many tasks, each waiting for its own."""
    end, count = time.perf_counter() + seconds, 0

    async def write(ref: Ref) -> None:
        nonlocal count
        while time.perf_counter() < end:
            count += 1
            with database.transaction() as transaction:
                transaction.update("VM", ref, name_description=f"commit {count}")
            await database.durable()

    await asyncio.gather(*(write(vms[number % len(vms)]) for number in range(writers)))
    return count / seconds


async def memory_commits(database: Database, vm: Ref, seconds: float) -> float:
    """Transactions per second in memory alone."""
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        for _ in range(100):
            count += 1
            with database.transaction() as transaction:
                transaction.update("VM", vm, memory_target=count)
        await asyncio.sleep(0)
    return count / seconds


async def latencies(database: Database, vm: Ref, subscribers: int, changes: int, *classes: str) -> list[float]:
    """Milliseconds from a change to the moment each subscriber of event.from has it."""
    events = Events(database, SystemClock())
    changed_at: dict[int, float] = {}
    found: list[float] = []
    token = (await events.from_("warm up", ("pool",), "", 0))["token"]

    async def follow(number: int) -> None:
        mine = token
        while True:
            batch = await events.from_(f"subscriber {number}", classes, mine, 30)
            now = time.perf_counter()
            mine = batch["token"]
            found.extend((now - changed_at[e["id"]]) * 1000 for e in batch["events"] if e["id"] in changed_at)

    followers = [asyncio.create_task(follow(number)) for number in range(subscribers)]
    for number in range(changes):
        await asyncio.sleep(0.03)
        with database.transaction() as transaction:
            transaction.update("VM", vm, name_description=f"change {number}")
        changed_at[database.row("VM", vm).generation] = time.perf_counter()
    await asyncio.sleep(0.2)
    for follower in followers:
        follower.cancel()
    await asyncio.gather(*followers, return_exceptions=True)
    database._listeners.clear()  # noqa: SLF001  # the next measurement starts without these subscribers
    return found


def percentiles(values: list[float]) -> str:
    """Median and 99th percentile."""
    ranked = sorted(values)
    return f"{statistics.median(ranked):.1f} / {ranked[int(len(ranked) * 0.99)]:.1f}"


async def measure(machines: int, directory: Path, report: Callable[[str, str], None]) -> None:
    """Everything, in one run."""
    path = directory / "state.db"
    database = await Database.open(GRAPH, path, SystemClock())
    pool = add_pool(database)
    begin = time.perf_counter()
    vms = [add_machine(database, number, *pool) for number in range(machines)]
    await database.durable()
    rows = sum(len(database.rows(cls)) for cls in database.layouts)
    report(f"making {machines} machines ({rows} rows), saved", f"{time.perf_counter() - begin:.2f} s")
    payload = database._journal._encoders["VM"](database.record("VM", vms[0]))  # type: ignore[union-attr]  # noqa: SLF001
    bare = bare_commits(directory / "bare.db", 1, payload)
    report(f"sqlite3 alone, same row ({len(payload)} bytes)", f"{bare:.0f} commits/s")
    for writers in (1, 8, 64):
        rate = await commits(database, vms, writers, 1)
        report(f"durable commits, {writers} at once", f"{rate:.0f}/s ({rate / bare:.2f} of sqlite3 alone)")
    report("commits in memory alone, no subscriber", f"{await memory_commits(database, vms[0], 0.5):.0f}/s")
    for subscribers, classes in ((1, ("*",)), (200, ("*",)), (200, ("VM", "host", "task"))):
        found = await latencies(database, vms[0], subscribers, 40, *classes)
        label = f"event latency, {subscribers} on {','.join(classes)}: median / p99"
        report(label, f"{percentiles(found)} ms ({len(found)} events)")
    report("commits in memory, 200 idle subscribers elsewhere", f"{await with_idle(database, vms[0]):.0f}/s")
    await database.close()
    await fresh(machines, path, report)


async def with_idle(database: Database, vm: Ref) -> float:
    """Transactions per second in memory while 200 subscribers wait for other classes."""
    events = Events(database, SystemClock())
    token = (await events.from_("x", ("pool",), "", 0))["token"]
    idle = [asyncio.create_task(events.from_(f"{number}", ("pool", "SR"), token, 30)) for number in range(200)]
    await asyncio.sleep(0)
    rate = await memory_commits(database, vm, 0.5)
    for task in idle:
        task.cancel()
    await asyncio.gather(*idle, return_exceptions=True)
    return rate


async def fresh(machines: int, path: Path, report: Callable[[str, str], None]) -> None:
    """Start-up and memory, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.database", "--load", str(path), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    seconds, used = map(float, out.split())
    report("start-up: opening that database", f"{seconds:.2f} s")
    report("memory per machine after start-up", f"{used / machines / 1000:.1f} kB")


async def load(path: Path) -> None:
    """Print how long opening takes and how much memory it needs."""
    before, begin = rss(), time.perf_counter()
    database = await Database.open(GRAPH, path, SystemClock())
    seconds = time.perf_counter() - begin
    gc.collect()
    print(seconds, rss() - before)
    await database.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the object database.")
    parser.add_argument("--machines", type=int, default=10_000)
    parser.add_argument("--load", type=Path, help="only open that database and print seconds and bytes")
    arguments = parser.parse_args()
    if arguments.load:
        asyncio.run(load(arguments.load))
        return
    print("| what | result |\n|---|---|")
    with tempfile.TemporaryDirectory(dir=Path.home()) as directory:
        asyncio.run(measure(arguments.machines, Path(directory), lambda what, result: print(f"| {what} | {result} |")))


if __name__ == "__main__":
    main()
