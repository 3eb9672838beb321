"""The composition root: takes the settings, builds every part and joins them, serves, and takes it all down again.

This is the only module that may import everything.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher

from domzero.addresses import HTTPS_PORT, authority, bracketed
from domzero.datamodel.graph import GRAPH
from domzero.engine.assembly import Engine, assemble
from domzero.engine.calls import Origin
from domzero.engine.database import Database
from domzero.engine.dispatch import Dispatcher
from domzero.engine.errors import ApiError
from domzero.engine.events import Events
from domzero.engine.pam import PamAuthenticator
from domzero.engine.passwords import Authenticator, Passwords, password_in
from domzero.engine.replacement import Replacement
from domzero.engine.users import ROOT
from domzero.finish import beside
from domzero.front.access import Access, guarded_like_calls
from domzero.front.administration import Administration
from domzero.front.certificates import FILE_NAME, Certificate, ensure_certificate, local_identities, tls_context
from domzero.front.cli import add_commands
from domzero.front.consoles import Consoles
from domzero.front.listeners import ListenError, open_unix
from domzero.front.remote import RemoteDoors
from domzero.front.server import SOCKET_MODE, Server
from domzero.front.snapshots import Snapshots
from domzero.front.transfers import Transfers
from domzero.hands import Hands, make_clock, make_hands, managed_interfaces
from domzero.host.clock import Clock
from domzero.host.compression import HostCompression
from domzero.host.console.lines import Lines
from domzero.host.console.picture import take
from domzero.host.diagnosis.linux import LinuxDiagnosis
from domzero.host.guest_port.sockets import PortSockets
from domzero.host.plugins.directory import PluginDirectory
from domzero.host.updates.local import LocalUpdates
from domzero.host.upload.http import upload
from domzero.host.xenstore import service as xenstore
from domzero.host.xenstore.service import XenstoreService
from domzero.manuals import manuals
from domzero.paths import CLASSIC_SOCKETS
from domzero.places import Places, StartError, places
from domzero.settings import Endpoint, Settings
from domzero.toolstack.gates import build_gates
from domzero.toolstack.housekeeping import keep_house
from domzero.toolstack.metrics import Metrics
from domzero.toolstack.registry import LOCAL_METHODS, implementations, pages
from domzero.toolstack.stack import Stack, StackSettings
from domzero.toolstack.startup import start_up
from domzero.toolstack.storage.pbd import detach_all
from domzero.toolstack.unimplemented import UNIMPLEMENTED
from domzero.toolstack.vm.console_places import ConsolePlaces
from domzero.toolstack.vm.machines import Machines
from domzero.wire.xmlrpc import XmlEncoder
from domzero.xe.door import CommandDoor

log = logging.getLogger(__name__)

OWNERS = ("VBD.VM", "VIF.VM", "PBD.SR", "PBD.host", "VDI.SR", "host_cpu.host", "console.VM")
"""Fields without whose object a row makes no sense; see `Database.open`."""

KERNEL_CRASHES = Path("/var/crash")
"""Where kdump-tools put what the kernel held when it crashed."""

FALLBACK_PORT = 8443
"""Where the daemon listens when the proper port is taken or not allowed."""

STOP_GRACE = 10.0
"""Seconds that calls under way may take after the daemon was told to stop."""


class BackgroundError(Exception):
    """Something that must go on for ever ended; the daemon had to stop."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A daemon that serves. `stopping` is set when it was asked to end; `restart` then tells whether to come back."""

    url: str
    fingerprint: str
    stack: Stack
    engine: Engine
    server: Server
    consoles: Consoles
    stopping: asyncio.Event
    restart: asyncio.Event


@asynccontextmanager
async def serving(settings: Settings, hasher: PasswordHasher | None = None) -> AsyncIterator[Serving]:
    """Start everything; within the block calls are answered; afterwards everything is put away, machines keep running.

    The door is open before the host is ready; until then it answers HOST_STILL_BOOTING. `hasher` says how passwords
    are hashed when it is not to be done as well as can be. Raises `StartError`, `BackgroundError`, and the errors of
    the parts, which all say what is wrong.
    """
    where = places(settings)
    clock = make_clock(settings)
    file = settings.root_password_file
    password = None if file is None else await asyncio.to_thread(password_in, file)
    async with AsyncExitStack() as cleanup:
        database, passwords = await _claim(where, hasher, cleanup)
        # A key and hashes take more processor time than all the rest; they are made in threads beside it.
        made = await cleanup.enter_async_context(beside(asyncio.to_thread(_certificate, where.state / "tls", settings)))
        known = await cleanup.enter_async_context(beside(_ensure_root_password(passwords, password)))
        await _load(database, clock)
        hands = await make_hands(settings, where.state, where.runtime, where.log_file, clock, _address(settings))
        stopping, restart = asyncio.Event(), asyncio.Event()
        stack = _stack(settings, where, database, clock, hands, stopping, restart)
        stack.diagnosis = LinuxDiagnosis(where.runtime, where.log_file.parent)
        stack.plugins = PluginDirectory(settings.plugin_dir or where.state / "plugins", where.socket)
        cleanup.callback(stack.audit.close)
        engine, dispatcher = _join(settings, stack, passwords)
        server, consoles = _door(engine, dispatcher, hands, stack)
        cleanup.push_async_callback(server.stop, STOP_GRACE)
        certificate = await made
        host, port = _listen(server, settings, where, certificate, stack.settings.address)
        stack.authority = authority(host, port)
        store = await cleanup.enter_async_context(_xenstore(settings, where, stack))
        await _open_hands(stack, engine, hands, cleanup)
        await known
        dispatcher.guard = None
        async with _background(
            stopping,
            engine.keep_house(),
            stack.events.heartbeat("pool"),
            Metrics(stack).run(),
            keep_house(stack),
            store.keep(),
            stack.guests.listen(),
        ):
            url = f"https://{bracketed(host)}:{port}"
            yield Serving(url, certificate.fingerprint, stack, engine, server, consoles, stopping, restart)
            stack.events.close()
            consoles.close()
            await server.stop(STOP_GRACE)


async def _load(database: Database, clock: Clock) -> None:
    await database.load(clock, owners=OWNERS)
    for finding in database.findings:
        log.warning("database: %s", finding)


@asynccontextmanager
async def _xenstore(settings: Settings, where: Places, stack: Stack) -> AsyncIterator[XenstoreService]:
    """The store, served to the host's programs, and ready for guests."""
    path, kept = settings.xenstore_socket or where.runtime / "xenstore", where.runtime / "xenstore.journal"
    async with xenstore.serving(kept, open_unix(path, SOCKET_MODE), path, stack.clock) as store:
        ports = PortSockets(store.server, stack.clock)
        stack.guests.open(store.local, ports)
        try:
            yield store
        finally:
            await ports.close()


async def _claim(where: Places, hasher: PasswordHasher | None, cleanup: AsyncExitStack) -> tuple[Database, Passwords]:
    """What lasts, kept from everybody else; what was restored has been put in place."""
    for name in await asyncio.to_thread(Replacement(where.state).apply):
        log.warning("%s is what was restored; the old one is below %s", name, where.state / "before-restore")
    database = await Database.claim(GRAPH, where.state / "state.db")
    cleanup.push_async_callback(database.close)
    passwords = Passwords(where.state / "passwords.json", hasher)
    cleanup.callback(passwords.close)
    return database, passwords


def _join(settings: Settings, stack: Stack, passwords: Passwords) -> tuple[Engine, Dispatcher]:
    """Engine and toolstack put together, with a dispatcher that refuses everything as long as its guard is there."""
    engine = assemble(
        stack.database,
        stack.events,
        stack.clock,
        passwords,
        this_host=lambda: stack.host,
        encode_value=XmlEncoder(GRAPH).encode_text,
        authenticators=_authenticators(passwords, settings.pam_service),
        session_limit=settings.max_sessions,
    )
    stack.tasks, stack.contexts, stack.sessions = engine.tasks, engine.contexts, engine.sessions
    stack.compression = HostCompression()
    stack.upload = upload
    stack.updates = LocalUpdates(stack.settings.state_dir / "updates")
    stack.gates = build_gates(stack.database, stack.clock)
    stack.machines = Machines(stack)
    dispatcher = engine.dispatcher(implementations(stack), UNIMPLEMENTED, local_methods=LOCAL_METHODS)
    dispatcher.guard = _still_booting
    dispatcher.auditor = stack.auditor
    stack.hold_changes = dispatcher.hold_changes
    stack.methods = lambda: tuple(dispatcher.method_names)
    return engine, dispatcher


def _still_booting(method: str, _origin: Origin) -> None:
    if not method.startswith("system."):
        raise ApiError("HOST_STILL_BOOTING")


def _door(engine: Engine, dispatcher: Dispatcher, hands: Hands, stack: Stack) -> tuple[Server, Consoles]:
    """What takes the calls, and the requests that are none; it listens nowhere yet."""
    server = Server(dispatcher, GRAPH)
    Administration(engine.users, engine.sessions, stack.auditor).add_to(server.routes)
    manuals().add_to(server.routes)
    if hands.simulation is not None:
        hands.simulation.add_to(server.routes)
    access = Access(engine.sessions, engine.door, engine.roles, engine.clock, stack.auditor)
    access.guard = guarded_like_calls(lambda: dispatcher.guard, _still_booting)
    consoles = Consoles(
        access, ConsolePlaces(stack), Lines(hands.console, hands.terminals), auditor=stack.auditor,
        subscribe=engine.database.subscribe,
    )  # fmt: skip
    consoles.add_to(server.routes)
    Snapshots(access, consoles, take).add_to(server.routes)
    Transfers(access, engine.tasks, engine.contexts).add_to(server.routes, pages(stack))
    add_commands(server.routes, CommandDoor(GRAPH, dispatcher, stack.methods, server.routes.has))
    stack.remote = RemoteDoors(server, dispatcher)
    return server, consoles


async def _open_hands(stack: Stack, engine: Engine, hands: Hands, cleanup: AsyncExitStack) -> None:
    """Find what runs already and make the rows true to it."""
    engine.start()
    if hands.console is not None:
        cleanup.push_async_callback(hands.console.close)
    cleanup.push_async_callback(hands.terminals.close)
    domains = await hands.hypervisor.open(stack.machines.listener)
    cleanup.push_async_callback(hands.hypervisor.close)
    await hands.network.open()
    cleanup.push_async_callback(hands.network.close)
    cleanup.push_async_callback(detach_all, stack)
    cleanup.push_async_callback(stack.networking.close)
    cleanup.push_async_callback(stack.archives.save_all)
    await start_up(stack, domains)
    cleanup.push_async_callback(stack.machines.close)
    cleanup.push_async_callback(engine.stop)


def tell(what: str) -> None:
    """A line on standard output, which whoever started the daemon may have closed."""
    try:
        print(f"domzero: {what}", flush=True)  # noqa: T201
    except OSError as error:
        log.warning("nobody reads standard output any more: %s", error.strerror)
        # What is left in the buffer would fail again when the process ends.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives


async def _ensure_root_password(passwords: Passwords, wanted: str | None) -> None:
    made_up = await passwords.ensure(ROOT, wanted)
    if made_up is not None:
        # At once: should the start fail further on, the next one will not know it any more.
        tell(f"root's password is {made_up} (shown once)")


def _authenticators(passwords: Passwords, pam_service: str) -> tuple[Authenticator, ...]:
    return (passwords, PamAuthenticator(pam_service)) if pam_service else (passwords,)


def _stack(
    settings: Settings, where: Places, database: Database, clock: Clock, hands: Hands, stopping: asyncio.Event,
    restart: asyncio.Event,
) -> Stack:  # fmt: skip
    def ask_for_restart() -> None:
        restart.set()
        stopping.set()

    return Stack(
        database=database,
        events=Events(database, clock),
        clock=clock,
        hypervisor=hands.hypervisor,
        storage=hands.storage,
        contents=hands.contents,
        network=hands.network,
        control=hands.control,
        facts=hands.facts,
        download=hands.download,
        settings=StackSettings(
            state_dir=where.state,
            version=version("domzero"),
            address=_address(settings),
            allow_power_off=settings.allow_power_off,
            has_host_console=hands.console is not None,
            manage_interfaces=managed_interfaces(settings),
            management_probation=settings.management_probation,
            guest_kernel=hands.guest.kernel if hands.guest else None,
            guest_ramdisk=hands.guest.ramdisk if hands.guest else None,
            guest_tools=hands.guest_tools,
            crash_dir=where.state / "crash" if settings.hypervisor == "sim" else KERNEL_CRASHES,
        ),
        restart=ask_for_restart,
        stop=stopping.set,
        disk_loader=hands.disk_loader,
    )


def _address(settings: Settings) -> str:
    return str(settings.address or management_address(settings.https))


def management_address(https: Endpoint | None) -> str:
    """Where others reach this host: the address it listens on, or the one its default route leaves from.

    Raises `StartError` for a name that has no address.
    """
    if https is not None and https.host not in ("", "0.0.0.0", "::"):
        try:
            return str(socket.getaddrinfo(https.host, https.port, type=socket.SOCK_STREAM)[0][4][0])
        except OSError as error:
            raise StartError(f"{https.host} has no address: {error.strerror}") from error
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing; it only asks the routing table (address: RFC 5737).
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _certificate(directory: Path, settings: Settings) -> Certificate:
    """The certificate, made at the first start for all names and addresses; a simulated host has but two addresses."""
    names, addresses = [socket.gethostname(), "localhost"], ["127.0.0.1"]
    if settings.hypervisor != "sim" and not (directory / FILE_NAME).exists():
        names, addresses = local_identities()
    return ensure_certificate(directory, names, dict.fromkeys([_address(settings), *addresses]))


def _listen(
    server: Server, settings: Settings, where: Places, certificate: Certificate, address: str
) -> tuple[str, int]:
    context = tls_context(certificate)
    wanted = [settings.https] if settings.https else [Endpoint("", HTTPS_PORT), Endpoint("", FALLBACK_PORT)]
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
    if os.geteuid() == 0 and settings.socket is None and settings.state_dir is None:
        _listen_classic(server)
    host = endpoint.host if endpoint.host not in ("", "0.0.0.0", "::") else address
    return host, port


def _listen_classic(server: Server) -> None:
    """XenServer's own local programs look for the socket in fixed places; the host that root runs is there too."""
    for path in CLASSIC_SOCKETS:
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            server.listen_unix(path)
        except (ListenError, OSError) as error:
            log.info("local programs of XenServer that look at %s are not served: %s", path, error)


@asynccontextmanager
async def _background(stopping: asyncio.Event, *work: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Work that goes on while the daemon serves. Should a part of it fail, the daemon stops rather than limps.

    Raises `BackgroundError` at the end when one failed.
    """
    tasks = [asyncio.ensure_future(part) for part in work]
    for task in tasks:
        task.add_done_callback(lambda _: stopping.set())
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            log.critical("a background job failed", exc_info=result)
            raise BackgroundError(f"a background job failed: {result!r}; see the log") from result
