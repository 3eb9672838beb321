"""The composition root: takes the settings, builds every part and joins them, serves, and takes it all down again.

This is the only module that may import everything.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from domzero import paths
from domzero.datamodel.graph import GRAPH
from domzero.engine.assembly import Engine, assemble
from domzero.engine.calls import Origin
from domzero.engine.database import Database
from domzero.engine.dispatch import Dispatcher
from domzero.engine.errors import ApiError
from domzero.engine.events import Events
from domzero.engine.pam import PamAuthenticator
from domzero.engine.passwords import Authenticator, Passwords
from domzero.engine.users import ROOT
from domzero.front.administration import Administration
from domzero.front.certificates import FILE_NAME, Certificate, ensure_certificate, local_identities, tls_context
from domzero.front.listeners import ListenError
from domzero.front.server import Server
from domzero.hands import Hands, make_clock, make_hands
from domzero.host.clock import Clock
from domzero.paths import CLASSIC_SOCKET
from domzero.settings import Endpoint, Settings
from domzero.toolstack.gates import build_gates
from domzero.toolstack.housekeeping import keep_house
from domzero.toolstack.metrics import Metrics
from domzero.toolstack.pbd import detach_all
from domzero.toolstack.registry import implementations
from domzero.toolstack.stack import Stack, StackSettings
from domzero.toolstack.startup import start_up
from domzero.toolstack.unimplemented import UNIMPLEMENTED
from domzero.toolstack.vm.machines import Machines
from domzero.wire.xmlrpc import XmlEncoder

log = logging.getLogger(__name__)

OWNERS = ("VBD.VM", "VIF.VM", "PBD.SR", "PBD.host", "VDI.SR", "host_cpu.host", "console.VM")
"""Fields without whose object a row makes no sense; see `Database.open`."""

HTTPS_PORT = 443
FALLBACK_PORT = 8443
"""Where the daemon listens when the proper port is taken or not allowed."""

STOP_GRACE = 10.0
"""Seconds that calls under way may take after the daemon was told to stop."""


class BackgroundError(Exception):
    """Something that must go on for ever ended; the daemon had to stop."""


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

    The door is open before the host is ready; until then it answers HOST_STILL_BOOTING. Raises `StartError`,
    `BackgroundError`, and the errors of the parts, which all say what is wrong.
    """
    where = places(settings)
    clock = make_clock(settings)
    async with AsyncExitStack() as cleanup:
        database = await Database.open(GRAPH, where.state / "state.db", clock, owners=OWNERS)
        cleanup.push_async_callback(database.close)
        for finding in database.findings:
            log.warning("database: %s", finding)
        passwords = Passwords(where.state / "passwords.json")
        cleanup.callback(passwords.close)
        # What takes processor time at the first start is done side by side.
        certificate, password, hands = await asyncio.gather(
            asyncio.to_thread(_certificate, where.state / "tls", settings),
            _ensure_root_password(passwords, settings.root_password_file),
            make_hands(settings, where.state, where.runtime, where.log_file, clock),
        )
        stopping, restart = asyncio.Event(), asyncio.Event()
        stack = _stack(settings, where, database, clock, hands, stopping, restart)
        engine, dispatcher = _join(settings, stack, passwords)
        server = Server(dispatcher, GRAPH)
        Administration(engine.users, engine.sessions).add_to(server.routes)
        if hands.simulation is not None:
            hands.simulation.add_to(server.routes)
        cleanup.push_async_callback(server.stop, STOP_GRACE)
        stack.authority = _listen(server, settings, where, certificate, stack.settings.address)
        await _open_hands(stack, engine, hands, cleanup)
        dispatcher.guard = None
        async with _background(
            stopping,
            engine.keep_house(),
            stack.events.heartbeat("pool"),
            Metrics(stack).run(),
            keep_house(stack),
        ):
            url = f"https://{stack.authority}"
            yield Serving(url, certificate.fingerprint, password, stack, engine, server, stopping, restart)
            stack.events.wind_up()
            await server.stop(STOP_GRACE)


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
    stack.tasks, stack.contexts = engine.tasks, engine.contexts
    stack.gates = build_gates(stack.database, stack.clock)
    stack.machines = Machines(stack)
    dispatcher = engine.dispatcher(implementations(stack), UNIMPLEMENTED)
    dispatcher.guard = _still_booting
    stack.methods = lambda: tuple(dispatcher.method_names)
    return engine, dispatcher


def _still_booting(method: str, _origin: Origin) -> None:
    if not method.startswith("system."):
        raise ApiError("HOST_STILL_BOOTING")


async def _open_hands(stack: Stack, engine: Engine, hands: Hands, cleanup: AsyncExitStack) -> None:
    """Find what runs already and make the rows true to it."""
    engine.start()
    domains = await hands.hypervisor.open(stack.machines.listener)
    cleanup.push_async_callback(hands.hypervisor.close)
    await hands.network.open()
    cleanup.push_async_callback(hands.network.close)
    cleanup.push_async_callback(detach_all, stack)
    await start_up(stack, domains)
    cleanup.push_async_callback(stack.machines.close)
    cleanup.push_async_callback(engine.stop)


async def run(settings: Settings) -> bool:
    """Serve until told to stop by SIGTERM, SIGINT or a call. Returns whether the daemon is to be started again."""
    async with serving(settings) as daemon:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, daemon.stopping.set)
        announce(daemon)
        await daemon.stopping.wait()
        again = daemon.restart.is_set()
        # A restart is no end in the eyes of the service manager (sd_notify(3)).
        moment = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notify_service_manager(f"RELOADING=1\nMONOTONIC_USEC={moment}" if again else "STOPPING=1")
        log.info("stopping; virtual machines keep running")
    return daemon.restart.is_set()


def announce(daemon: Serving) -> None:
    """Tell the person, the script and the service manager who wait for it that calls are answered now."""
    lines = [f"domzero: certificate SHA-256 {daemon.fingerprint}", f"domzero: ready {daemon.url}"]
    if daemon.password is not None:
        lines.insert(0, f"domzero: root's password is {daemon.password} (shown once)")
    try:
        os.write(1, "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        # Whoever started the daemon may have stopped listening to it, which is no reason not to serve.
        log.info("nobody reads the standard output: %s", error)
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


def _stack(
    settings: Settings,
    where: Places,
    database: Database,
    clock: Clock,
    hands: Hands,
    stopping: asyncio.Event,
    restart: asyncio.Event,
) -> Stack:
    def ask_for_restart() -> None:
        restart.set()
        stopping.set()

    return Stack(
        database=database,
        events=Events(database, clock),
        clock=clock,
        hypervisor=hands.hypervisor,
        storage=hands.storage,
        network=hands.network,
        control=hands.control,
        facts=hands.facts,
        download=hands.download,
        settings=StackSettings(
            state_dir=where.state,
            version=version("domzero"),
            address=_address(settings),
            allow_power_off=settings.allow_power_off,
            guest_kernel=hands.guest.kernel if hands.guest else None,
            guest_ramdisk=hands.guest.ramdisk if hands.guest else None,
        ),
        restart=ask_for_restart,
        stop=stopping.set,
    )


def _address(settings: Settings) -> str:
    return str(settings.address or management_address(settings.https))


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


def _certificate(directory: Path, settings: Settings) -> Certificate:
    """The certificate, made at the first start for all names and addresses; a simulated host has but two addresses."""
    names, addresses = [socket.gethostname(), "localhost"], ["127.0.0.1"]
    if settings.hypervisor != "sim" and not (directory / FILE_NAME).exists():
        names, addresses = local_identities()
    return ensure_certificate(directory, names, dict.fromkeys([_address(settings), *addresses]))


def _listen(server: Server, settings: Settings, where: Places, certificate: Certificate, address: str) -> str:
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
    return authority(host, port)


def _listen_classic(server: Server) -> None:
    """XenServer's own local programs look for the socket in one place; the host that root runs is there too."""
    try:
        CLASSIC_SOCKET.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        server.listen_unix(CLASSIC_SOCKET)
    except (ListenError, OSError) as error:
        log.info("local programs of XenServer are not served: %s", error)


def authority(host: str, port: int) -> str:
    """Host and port as they stand in an https address."""
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port == HTTPS_PORT else f"{bracketed}:{port}"


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
