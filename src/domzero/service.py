"""The daemon as a process: logging, the event loop, ends and restarts."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import os
import signal
import sys
from typing import NoReturn

from domzero.daemon import BackgroundError, StartError, places, run
from domzero.engine.passwords import PasswordFileError
from domzero.engine.store import StoreError
from domzero.front.certificates import CertificateError
from domzero.front.listeners import ListenError
from domzero.hands import HandsError
from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.network.protocol import NetworkError
from domzero.settings import Settings

log = logging.getLogger(__name__)

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
    try:
        _start_log(settings)
        again = asyncio.run(run(settings))
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
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    for handler in (file, terminal):
        handler.setFormatter(form)
        root.addHandler(handler)
    # qemu.qmp reports every ordinary disconnection as an error; the driver logs what matters.
    logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
