"""The daemon as a process: logging, the event loop, ends and restarts."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import os
import sys

from domzero.daemon import BackgroundError, StartError, places, run
from domzero.engine.passwords import PasswordFileError
from domzero.engine.store import StoreError
from domzero.front.certificates import CertificateError
from domzero.front.listeners import ListenError
from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.network.protocol import NetworkError
from domzero.settings import Settings

LOG_SIZE = 8 << 20
LOGS_KEPT = 4

START_PROBLEMS = (
    StartError, BackgroundError, StoreError, PasswordFileError, CertificateError, ListenError, HypervisorError,
    NetworkError,
)  # fmt: skip
"""What keeps a daemon from starting and has a sentence for the operator."""


def serve(settings: Settings) -> int:
    """Run the daemon until it is told to stop. Returns the exit code; a restart replaces the process."""
    try:
        _log_to_file(settings)
        again = asyncio.run(run(settings))
    except START_PROBLEMS as error:
        print(f"domzero: {error}", file=sys.stderr)  # noqa: T201
        return 1
    if again:
        # The same process begins anew, so that the service manager and the children of this one notice nothing.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
    return 0


def _log_to_file(settings: Settings) -> None:
    root = logging.getLogger()
    root.setLevel(settings.log_level.upper())
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    file = logging.handlers.RotatingFileHandler(places(settings).log_file, maxBytes=LOG_SIZE, backupCount=LOGS_KEPT)
    terminal = logging.StreamHandler()
    for handler in (file, terminal):
        handler.setFormatter(form)
        root.addHandler(handler)
    # qemu.qmp reports every ordinary disconnection as an error; the driver logs what matters.
    logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
