"""The daemon as a process: logging, the event loop, signals, what it tells whoever started it, ends and restarts."""

from __future__ import annotations

import asyncio
import gc
import logging
import logging.handlers
import os
import resource
import signal
import socket
import sys
from importlib.metadata import version
from typing import NoReturn
from urllib.parse import urlsplit

from domzero import paths
from domzero.addresses import HTTPS_PORT
from domzero.daemon import BackgroundError, Serving, serving, tell
from domzero.engine.passwords import PasswordFileError
from domzero.engine.store import StoreError
from domzero.front.certificates import CertificateError
from domzero.front.listeners import ListenError
from domzero.hands import HandsError
from domzero.host.control.own_log import LineFormatter
from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.network.protocol import NetworkError
from domzero.host.updates import overlay
from domzero.places import StartError, places
from domzero.settings import Settings

log = logging.getLogger(__name__)

DESCRIPTORS = 65_536
"""What the packaged unit allows, too. Every connection takes one, every machine some, and a shell gives but 1,024."""
LOG_SIZE = 8 << 20
LOGS_KEPT = 4

START_PROBLEMS = (
    StartError, HandsError, BackgroundError, StoreError, PasswordFileError, CertificateError, ListenError,
    HypervisorError, NetworkError,
)  # fmt: skip
"""What keeps a daemon from starting and has a sentence for the operator."""

TOLD = {"told": True}
"""Marks a log record that standard error has in words of its own."""


def serve(settings: Settings) -> int:
    """Run the daemon until it is told to stop. Returns the exit code; a restart replaces the process.

    What ends it is in the log and told on standard error: in a sentence where that is known to be enough.
    """
    overlay.enter(settings.state_dir or paths.state_dir())
    allow_descriptors()
    try:
        _start_log(settings)
        with asyncio.Runner(loop_factory=event_loop) as runner:
            runner.get_loop()
            again = runner.run(run(settings))
    except START_PROBLEMS as error:
        log.critical("%s", error, extra=TOLD)
        print(f"domzero: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        # Before calls are answered there is nobody to be polite to.
        return 128 + signal.SIGINT
    except Exception:
        log.critical("the daemon failed unexpectedly", exc_info=True)
        return 1
    finally:
        logging.shutdown()
    if again is not None:
        _begin_anew(settings, again)
    return 0


def event_loop() -> asyncio.AbstractEventLoop:
    """A new one. Ctrl-C meanwhile counts when it is whole: half a loop complains with a traceback when it goes."""
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        return asyncio.new_event_loop()
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)


def allow_descriptors() -> None:
    """Raise the limit of descriptors that this process has to what it may have, or to `DESCRIPTORS`."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if most == resource.RLIM_INFINITY else min(most, DESCRIPTORS)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


async def run(settings: Settings) -> int | None:
    """Serve until told to stop by SIGTERM, SIGINT or a call.

    Returns the HTTPS port where the daemon is to be started again, None where it is to end.
    """
    async with serving(settings) as daemon:
        # What is there now stays: without this each full collection walks ten thousand machines' objects, for 0.3 s.
        gc.freeze()
        gc.enable()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, daemon.stopping.set)
        announce(daemon)
        await daemon.stopping.wait()
        again = daemon.restart.is_set()
        # STOPPING=1 would make systemd wait for the process's end, and kill it when that does not come.
        notify_service_manager("RELOADING=1" if again else "STOPPING=1")
        log.info("%s; virtual machines keep running", "starting again" if again else "stopping")
    return (urlsplit(daemon.url).port or HTTPS_PORT) if again else None


def announce(daemon: Serving) -> None:
    """Tell the person, the script and the service manager who wait for it that calls are answered now."""
    tell(f"certificate SHA-256 {daemon.fingerprint}")
    tell(f"ready {daemon.url}")
    notify_service_manager("READY=1")
    log.info("domzero %s serves %s", version("domzero"), daemon.url)


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


def _begin_anew(settings: Settings, port: int) -> NoReturn:
    """The same process begins anew, so that the service manager and the children of this one notice nothing.

    A free port that was found once stays, so that clients find the host again.
    """
    https = settings.https
    stay = ["--https", f"[{https.host}]:{port}"] if https is not None and https.port == 0 else []
    # What comes last on a command line counts.
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], *stay])  # noqa: S606


def _start_log(settings: Settings) -> None:
    """Log to a file that is turned over when it is full, and to standard error. Raises `StartError`."""
    path = places(settings).log_file
    try:
        file = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_SIZE, backupCount=LOGS_KEPT, encoding="utf-8")
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror}. Choose --state-dir.") from error
    terminal = logging.StreamHandler()
    terminal.addFilter(lambda record: not hasattr(record, "told"))
    root = logging.getLogger()
    root.setLevel(settings.log_level.upper())
    form = LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    for handler in (file, terminal):
        handler.setFormatter(form)
        root.addHandler(handler)
    # qemu.qmp reports every ordinary disconnection as an error; the driver logs what matters.
    logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
