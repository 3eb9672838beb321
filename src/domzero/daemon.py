"""The composition root: takes the settings, builds every part and joins them, serves, and takes it all down again.

This is the only module that may import everything.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from domzero import paths
from domzero.datamodel.graph import GRAPH
from domzero.engine.assembly import Engine, assemble
from domzero.engine.database import Database
from domzero.engine.events import Events
from domzero.engine.pam import PamAuthenticator
from domzero.engine.passwords import Authenticator, Passwords
from domzero.engine.users import ROOT
from domzero.front.administration import Administration
from domzero.front.certificates import Certificate, ensure_certificate, local_identities, tls_context
from domzero.front.listeners import ListenError
from domzero.front.server import Server
from domzero.host.clock import SystemClock
from domzero.host.control import HostControl, LinuxControl, SimulatedControl
from domzero.host.guest_image import GuestImage, GuestImageError, build
from domzero.host.hypervisor.protocol import Hypervisor
from domzero.host.hypervisor.qemu.driver import QemuHypervisor, UserRange
from domzero.host.hypervisor.sim.driver import SimHypervisor
from domzero.host.network.bridge import BridgeNetwork
from domzero.host.network.protocol import NetworkBackend
from domzero.host.network.sim import SimNetwork
from domzero.host.network.user import UserNetwork
from domzero.host.storage.file import FileStorage
from domzero.host.storage.iso import IsoStorage
from domzero.host.storage.protocol import StorageDriver
from domzero.host.storage.sim import SimStorage
from domzero.settings import Endpoint, Settings
from domzero.toolstack.gates import build_gates
from domzero.toolstack.housekeeping import keep_house
from domzero.toolstack.metrics import Metrics
from domzero.toolstack.registry import implementations
from domzero.toolstack.stack import Stack, StackSettings
from domzero.toolstack.startup import start_up
from domzero.toolstack.unimplemented import UNIMPLEMENTED
from domzero.toolstack.vm.machines import Machines
from domzero.wire.xmlrpc import XmlEncoder

log = logging.getLogger(__name__)

OWNERS = ("VBD.VM", "VIF.VM", "PBD.SR", "PBD.host", "VDI.SR", "host_cpu.host", "console.VM")
"""Fields without whose object a row makes no sense; see `Database.open`."""

FIRST_USER = 0x7D000000
"""Machines run as users from this number on: far from people's, services' and containers' (systemd's UIDS-GIDS.md)."""

STOP_GRACE = 10.0
"""Seconds that calls under way may take after the daemon was told to stop."""


class StartError(Exception):
    """The daemon cannot start; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Places:
    """The directories and files of one daemon."""

    state: Path
    runtime: Path
    socket: Path

    @property
    def log_file(self) -> Path:
        """domzero's own log."""
        return self.state / "log" / "domzero.log"


@dataclass(frozen=True, slots=True)
class Hands:
    """What touches the machine, real or simulated."""

    hypervisor: Hypervisor
    storage: Mapping[str, StorageDriver]
    network: NetworkBackend
    control: HostControl
    guest: GuestImage | None


@dataclass(frozen=True, slots=True)
class Serving:
    """A daemon that serves. `stopping` is set when it was asked to end; `restart` then tells whether to come back."""

    url: str
    fingerprint: str
    password: str | None
    """Root's password where it was made up at this start, to be shown once."""
    stack: Stack
    engine: Engine
    server: Server
    stopping: asyncio.Event
    restart: asyncio.Event


def places(settings: Settings) -> Places:
    """Where this daemon keeps things; the directories are made, readable by nobody else. Raises `StartError`."""
    state = settings.state_dir or paths.state_dir()
    runtime = settings.runtime_dir or (state / "run" if settings.state_dir else paths.runtime_dir(state))
    chosen = Places(state, runtime, settings.socket or paths.socket_path(runtime))
    try:
        for directory in (chosen.state, chosen.runtime, chosen.log_file.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        chosen.socket.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"{error.filename} cannot be made: {error.strerror}. Choose --state-dir.") from error
    return chosen


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Serving]:
    """Start everything; within the block calls are answered; afterwards everything is put away, machines keep running.

    Raises `StartError`, and the errors of the parts, which all say what is wrong.
    """
    where = places(settings)
    clock = SystemClock()
    async with AsyncExitStack() as cleanup:
        database = await Database.open(GRAPH, where.state / "state.db", clock, owners=OWNERS)
        cleanup.push_async_callback(database.close)
        for finding in database.findings:
            log.warning("database: %s", finding)
        events = Events(database, clock)
        passwords = Passwords(where.state / "passwords.json")
        cleanup.callback(passwords.close)
        password = await _ensure_root_password(passwords, settings.root_password_file)
        stopping, restart = asyncio.Event(), asyncio.Event()
        hands = await _hands(settings, where, clock)
        stack = _stack(settings, where, database, events, clock, hands, stopping, restart)
        engine = assemble(
            database,
            events,
            clock,
            passwords,
            this_host=lambda: stack.host,
            encode_value=XmlEncoder(GRAPH).encode_text,
            authenticators=_authenticators(passwords, settings.pam_service),
            session_limit=settings.max_sessions,
        )
        stack.tasks, stack.contexts = engine.tasks, engine.contexts
        stack.gates = build_gates(database, clock)
        stack.machines = Machines(stack)
        dispatcher = engine.dispatcher(implementations(stack), UNIMPLEMENTED)
        stack.methods = lambda: tuple(dispatcher.method_names)
        engine.start()
        domains = await hands.hypervisor.open(stack.machines.listener)
        cleanup.push_async_callback(hands.hypervisor.close)
        await hands.network.open()
        cleanup.push_async_callback(hands.network.close)
        await start_up(stack, domains)
        cleanup.push_async_callback(stack.machines.close)
        cleanup.push_async_callback(engine.stop)
        async with _background(engine.keep_house(), Metrics(stack).run(), keep_house(stack)):
            server = Server(dispatcher, GRAPH)
            Administration(engine.users, engine.sessions).add_to(server.routes)
            cleanup.push_async_callback(server.stop, STOP_GRACE)
            certificate = await asyncio.to_thread(_certificate, where.state / "tls", stack.settings.address)
            url = _listen(server, settings, where, certificate, stack.settings.address)
            yield Serving(url, certificate.fingerprint, password, stack, engine, server, stopping, restart)
            await server.stop(STOP_GRACE)


async def run(settings: Settings) -> bool:
    """Serve until told to stop by SIGTERM, SIGINT or a call. Returns whether the daemon is to be started again."""
    async with serving(settings) as daemon:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, daemon.stopping.set)
        announce(daemon)
        await daemon.stopping.wait()
        notify_service_manager("STOPPING=1")
        log.info("stopping; virtual machines keep running")
    return daemon.restart.is_set()


def announce(daemon: Serving) -> None:
    """Tell the person, the script and the service manager who wait for it that calls are answered now."""
    if daemon.password is not None:
        print(f"domzero: root's password is {daemon.password} (shown once)", flush=True)  # noqa: T201
    print(f"domzero: certificate SHA-256 {daemon.fingerprint}", flush=True)  # noqa: T201
    print(f"domzero: ready {daemon.url}", flush=True)  # noqa: T201
    notify_service_manager("READY=1")


def notify_service_manager(state: str) -> None:
    """systemd's readiness protocol (sd_notify(3)); without a service manager nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifications:
        try:
            notifications.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            log.warning("the service manager could not be told %s: %s", state, error)


async def _ensure_root_password(passwords: Passwords, file: Path | None) -> str | None:
    if file is None:
        return await passwords.ensure(ROOT)
    try:
        lines = (await asyncio.to_thread(file.read_text)).splitlines()
    except OSError as error:
        raise StartError(f"{file} cannot be read: {error.strerror}") from error
    if not lines or not lines[0]:
        raise StartError(f"{file} has no password in its first line")
    if not await passwords.verify(ROOT, lines[0]):
        await passwords.set(ROOT, lines[0])
    return None


def _authenticators(passwords: Passwords, pam_service: str) -> tuple[Authenticator, ...]:
    return (passwords, PamAuthenticator(pam_service)) if pam_service else (passwords,)


async def _hands(settings: Settings, where: Places, clock: SystemClock) -> Hands:
    if settings.hypervisor == "sim":
        storage: dict[str, StorageDriver] = {
            "file": SimStorage(clock, where.state / "sim" / "storage"),
            "iso": IsoStorage(),
        }
        hypervisor = SimHypervisor(clock, state=where.state / "sim" / "domains", version=version("domzero"))
        pretended = GuestImage(Path("/sim/vmlinuz"), Path("/sim/initrd"))
        return Hands(hypervisor, storage, SimNetwork(clock), SimulatedControl(), pretended)
    root = os.geteuid() == 0
    guest: GuestImage | None
    try:
        roots = [settings.guest_image_dir] if settings.guest_image_dir else None
        guest = await build(where.state / "guest", roots=roots)
    except GuestImageError as error:
        log.warning("the template Tiny Linux is left out: %s", error)
        guest = None
    return Hands(
        QemuHypervisor(
            where.runtime, where.state, accelerator=settings.accel, users=UserRange(FIRST_USER) if root else None
        ),
        {"file": FileStorage(), "iso": IsoStorage()},
        BridgeNetwork() if root else UserNetwork(),
        LinuxControl(),
        guest,
    )


def _stack(
    settings: Settings,
    where: Places,
    database: Database,
    events: Events,
    clock: SystemClock,
    hands: Hands,
    stopping: asyncio.Event,
    restart: asyncio.Event,
) -> Stack:
    def ask_for_restart() -> None:
        restart.set()
        stopping.set()

    return Stack(
        database=database,
        events=events,
        clock=clock,
        hypervisor=hands.hypervisor,
        storage=hands.storage,
        network=hands.network,
        control=hands.control,
        settings=StackSettings(
            state_dir=where.state,
            version=version("domzero"),
            address=settings.address or management_address(settings.https),
            allow_power_off=settings.allow_power_off,
            guest_kernel=hands.guest.kernel if hands.guest else None,
            guest_ramdisk=hands.guest.ramdisk if hands.guest else None,
            log_file=where.log_file,
        ),
        restart=ask_for_restart,
        stop=stopping.set,
    )


def management_address(https: Endpoint | None) -> str:
    """Where others reach this host: the address it listens on, or the one its default route leaves from."""
    if https is not None and https.host not in ("", "0.0.0.0", "::"):
        return https.host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing; it only asks the routing table (address: RFC 5737).
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _certificate(directory: Path, address: str) -> Certificate:
    names, addresses = local_identities()
    return ensure_certificate(directory, names, dict.fromkeys([address, *addresses]))


def _listen(server: Server, settings: Settings, where: Places, certificate: Certificate, address: str) -> str:
    context = tls_context(certificate)
    wanted = [settings.https] if settings.https else [Endpoint("", 443), Endpoint("", 8443)]
    for position, endpoint in enumerate(wanted):
        try:
            port = server.listen_https(endpoint.host, endpoint.port, context)
            break
        except ListenError as error:
            if position + 1 == len(wanted):
                raise StartError(str(error)) from error
            log.info("%s; trying port %d", error, wanted[position + 1].port)
    if settings.http is not None:
        server.listen_http(settings.http.host, settings.http.port)
    server.listen_unix(where.socket)
    host = endpoint.host if endpoint.host not in ("", "0.0.0.0", "::") else address
    return f"https://{f'[{host}]' if ':' in host else host}:{port}"


@asynccontextmanager
async def _background(*work: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Work that goes on while the daemon serves. Should a part of it fail, the daemon stops rather than limps."""
    tasks = [asyncio.ensure_future(part) for part in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("a background job had failed", exc_info=result)
