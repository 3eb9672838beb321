"""A whole toolstack on simulated hands and a clock moved by hand, called as clients call it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from argon2 import PasswordHasher

from domzero.datamodel.graph import GRAPH
from domzero.engine.assembly import Engine, assemble
from domzero.engine.binding import is_removed
from domzero.engine.calls import LOCAL
from domzero.engine.database import Database
from domzero.engine.dispatch import Dispatcher
from domzero.engine.errors import ApiError
from domzero.engine.events import Events
from domzero.engine.passwords import Passwords
from domzero.host.clock import ManualClock
from domzero.host.compression import HostCompression
from domzero.host.contents.files import FileContents
from domzero.host.control.sim import SimulatedControl
from domzero.host.download.http import download
from domzero.host.hypervisor.sim.driver import SimHypervisor
from domzero.host.metrics.linux import LinuxFacts
from domzero.host.network.sim import INTERFACES, SimNetwork, interfaces_at
from domzero.host.storage.iso.driver import IsoStorage
from domzero.host.storage.protocol import StorageDriver
from domzero.host.storage.sim import SimStorage
from domzero.host.updates.local import LocalUpdates
from domzero.host.upload.http import upload
from domzero.idl.types import Ref
from domzero.toolstack.gates import build_gates
from domzero.toolstack.registry import implementations
from domzero.toolstack.stack import Stack, StackSettings
from domzero.toolstack.startup import start_up
from domzero.toolstack.vm.machines import Machines
from domzero.wire.xmlrpc import XmlEncoder

MIB = 1 << 20
KERNEL = Path("/sim/vmlinuz")
RAMDISK = Path("/sim/initrd")
Result = TypeVar("Result")


@dataclass
class World:
    """A running host. `call` acts as a client that is logged in as root."""

    stack: Stack
    dispatcher: Dispatcher
    session: str
    clock: ManualClock
    hypervisor: SimHypervisor
    network: SimNetwork

    async def call(self, method: str, *params: Any) -> Any:
        """The result of a call. Raises `ApiError`."""
        answer = self.dispatcher.call(method, [self.session, *params], LOCAL)
        return (await answer if inspect.isawaitable(answer) else answer).value

    async def fails(self, method: str, *params: Any) -> tuple[str, ...]:
        """Code and parameters of a call that must fail."""
        try:
            await self.call(method, *params)
        except ApiError as error:
            return error.description
        raise AssertionError(f"{method} succeeded")

    def begin(self, method: str, *params: Any) -> asyncio.Task[Any]:
        """A call that goes on while the test does something else."""
        return asyncio.ensure_future(self.call(method, *params))

    def get(self, cls: str, ref: Ref, field: str) -> Any:
        return self.stack.database.get(cls, ref, field)

    def change(self, cls: str, ref: Ref, **fields: Any) -> None:
        """Change rows behind the toolstack's back."""
        with self.stack.database.transaction() as transaction:
            transaction.update(cls, ref, **fields)

    def power_state(self, vm: Ref) -> str:
        return str(self.get("VM", vm, "power_state"))

    async def until_state(self, vm: Ref, state: str) -> None:
        """Let work in the background go on until the machine is in that state."""
        try:
            async with asyncio.timeout(20):
                while self.power_state(vm) != state:  # noqa: ASYNC110 - the clock that tells stands still
                    await asyncio.sleep(0.001)
        except TimeoutError:
            raise AssertionError(f"the machine is {self.power_state(vm)}, not {state}") from None

    async def settle(self) -> None:
        """Give background work a moment of real time, no time on the clock; more of it while threads are at work."""
        for _ in range(50):
            for _ in range(5):
                await asyncio.sleep(0.002)
                await _all_had_their_turns()
            if not _threads_at_work():
                return

    async def over(self, call: Awaitable[Result], seconds: float, step: float = 1.0) -> Result:
        """The result of a call that needs time on the clock."""
        task = asyncio.ensure_future(call)
        for _ in range(int(seconds / step) + 1):
            await self.settle()
            if task.done():
                break
            await self.clock.advance(step)
        return await asyncio.wait_for(task, 10)

    def domids(self) -> set[int]:
        """What the hypervisor has running."""
        return set(self.hypervisor._domains)

    def cards(self) -> set[tuple[int, int]]:
        """What the network backend has connected."""
        return set(self.network._cards)

    def files(self) -> set[str]:
        """What the storage has on its medium."""
        return {path.name for path in (self.stack.settings.state_dir / "storage").rglob("*") if path.is_file()}

    async def machine(self, *, disks: int = 1, cards: int = 1, template: bool = False, **fields: Any) -> Ref:
        """A halted paravirtual machine."""
        vm = str(await self.call("VM.create", {**MACHINE, "is_a_template": template, **fields}))
        sr = self.get("pool", self.stack.pool, "default_SR")
        network = self.stack.database.refs("network")[0]
        for number in range(disks):
            vdi = await self.call("VDI.create", {**DISK, "SR": sr})
            await self.call("VBD.create", {**DRIVE, "VM": vm, "VDI": vdi, "userdevice": str(number)})
        for number in range(cards):
            await self.call("VIF.create", {**CARD, "VM": vm, "network": network, "device": str(number)})
        return vm

    def row(self, cls: str, ref: Ref) -> dict[str, Any]:
        return dict(self.stack.database.record(cls, ref))


async def _all_had_their_turns() -> None:
    """Return when nothing can go on without threads, descriptors or time: a busy machine gives few turns in a while."""
    loop: Any = asyncio.get_running_loop()
    for _ in range(10_000):
        await asyncio.sleep(0)
        if not loop._ready:
            return


def _threads_at_work() -> bool:
    """Whether the loop's threads have something to do."""
    executor: Any = getattr(asyncio.get_running_loop(), "_default_executor", None)
    return executor is not None and executor._idle_semaphore._value < len(executor._threads)


MACHINE: dict[str, Any] = {
    "name_label": "a machine", "name_description": "", "user_version": 1, "is_a_template": False,
    "affinity": "OpaqueRef:NULL", "memory_static_max": 128 * MIB, "memory_dynamic_max": 128 * MIB,
    "memory_dynamic_min": 128 * MIB, "memory_static_min": 64 * MIB, "VCPUs_params": {}, "VCPUs_max": 1,
    "VCPUs_at_startup": 1, "actions_after_shutdown": "destroy", "actions_after_reboot": "restart",
    "actions_after_crash": "destroy", "PV_bootloader": "", "PV_kernel": str(KERNEL), "PV_ramdisk": str(RAMDISK),
    "PV_args": "console=ttyS0", "PV_bootloader_args": "", "PV_legacy_args": "", "HVM_boot_policy": "",
    "HVM_boot_params": {}, "platform": {}, "PCI_bus": "", "other_config": {}, "recommendations": "",
}  # fmt: skip
DISK: dict[str, Any] = {
    "name_label": "a disk", "name_description": "", "virtual_size": str(8 * MIB), "type": "user", "sharable": False,
    "read_only": False, "other_config": {},
}  # fmt: skip
DRIVE: dict[str, Any] = {
    "bootable": True, "mode": "RW", "type": "Disk", "unpluggable": True, "empty": False, "other_config": {},
    "qos_algorithm_type": "", "qos_algorithm_params": {},
}  # fmt: skip
CARD: dict[str, Any] = {
    "MAC": "", "MTU": 1500, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
}  # fmt: skip


def joined(engine: Engine, stack: Stack) -> Dispatcher:
    """The dispatcher of what there is. Without `engine.start`: half of what that costs goes into role objects."""
    found = implementations(stack)
    own = engine.implementations()
    there = found.keys() | own.keys()
    missing = {
        name
        for name, method in GRAPH.methods.items()
        if method.message.implicit is None and not is_removed(method.message) and name not in there
    }
    engine.users.reconcile()
    engine.tasks.recover()
    engine.sessions.restore()
    return engine.dispatcher(found, missing)


def simulated(
    directory: Path, rows: Database, clock: ManualClock, hypervisor: SimHypervisor, network: SimNetwork
) -> Stack:
    """The toolstack's view of simulated hands."""
    storage: dict[str, StorageDriver] = {"file": SimStorage(clock, directory / "storage"), "iso": IsoStorage()}
    return Stack(
        database=rows,
        events=Events(rows, clock),
        clock=clock,
        hypervisor=hypervisor,
        storage=storage,
        contents=FileContents(),
        network=network,
        control=SimulatedControl(directory / "log"),
        facts=LinuxFacts(),
        download=download,
        settings=StackSettings(directory, "1.0", manage_interfaces=None, guest_kernel=KERNEL, guest_ramdisk=RAMDISK),
        restart=lambda: None,
        stop=lambda: None,
    )


@asynccontextmanager
async def world(
    directory: Path,
    *,
    database: Path | None = None,
    clock: ManualClock | None = None,
    hypervisors: type[SimHypervisor] = SimHypervisor,
    address: str | None = None,
) -> AsyncIterator[World]:
    """A host on a directory; a second one on the same directory and database file is the host after a restart.

    With an address it is a simulated host as a daemon makes it; without, it is reached by loopback only.
    """
    clock = clock or ManualClock()
    rows = await Database.open(GRAPH, database, clock)
    hypervisor = hypervisors(clock, state=directory / "domains")
    network = SimNetwork(clock, INTERFACES if address is None else interfaces_at(address))
    stack = simulated(directory, rows, clock, hypervisor, network)
    if address is not None:
        stack.settings = replace(stack.settings, address=address)
    engine = assemble(
        rows,
        stack.events,
        clock,
        Passwords(directory / "passwords", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)),
        this_host=lambda: stack.host,
        encode_value=XmlEncoder(GRAPH).encode_text,
    )
    stack.tasks, stack.contexts, stack.sessions = engine.tasks, engine.contexts, engine.sessions
    stack.compression = HostCompression(1)
    stack.gates = build_gates(rows, clock)
    stack.machines = Machines(stack)
    stack.upload = upload
    stack.updates = LocalUpdates(directory / "updates")
    dispatcher = joined(engine, stack)
    stack.methods = lambda: tuple(dispatcher.method_names)
    try:
        await start_up(stack, await hypervisor.open(stack.machines.listener))
        answer = dispatcher.call("session.login_with_password", ["root", ""], LOCAL)
        session = (await answer if inspect.isawaitable(answer) else answer).value
        yield World(stack, dispatcher, session, clock, hypervisor, network)
    finally:
        await stack.networking.close()
        await stack.machines.close()
        await engine.stop(0)
        await hypervisor.close()
        await rows.close()
