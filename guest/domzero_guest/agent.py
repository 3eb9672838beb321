"""The agent: connects, serves one session after the other, and waits longer and longer while there is no host."""

import logging
import os
import socket
from typing import Optional

from . import netlink
from .desktop import Desktop
from .session import Renewed, Session
from .settings import Settings, device
from .store import Lost, Store, Stream, wait
from .system import System
from .timesync import Timekeeper

log = logging.getLogger(__name__)

FIRST_DELAY, LONGEST_DELAY = 0.25, 5.0
"""Seconds between attempts to connect."""


class Agent:
    """Runs until `stop`, which may be called from a signal handler."""

    def __init__(self, settings: Settings, system: System, desktop: Desktop) -> None:
        self._settings = settings
        self._system = system
        self._desktop = desktop
        self._timekeeper = (
            Timekeeper(system.root, system.monotonic, system.now, system.set_clock) if settings.time_sync else None
        )
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._stopped = False
        self._delay = FIRST_DELAY
        self._said = ""

    def stop(self) -> None:
        """End soon."""
        if self._stopped:
            return
        try:
            os.write(self._wake, b"\0")
        except BlockingIOError:
            log.debug("woken already")
        # Last, for whoever sees it closes what was just written to.
        self._stopped = True

    def run(self) -> None:
        """Until `stop`. Raises nothing that a host or a broken port could cause."""
        self._desktop.restore()
        notices = _notices()
        try:
            while not self._stopped:
                if not self._connect(notices):
                    wait([self._woken], self._delay)
                    self._delay = min(self._delay * 2, LONGEST_DELAY)
        finally:
            self._stopped = True
            if notices is not None:
                notices.close()
            os.close(self._wake)
            os.close(self._woken)

    def _connect(self, notices: Optional[socket.socket]) -> bool:
        """One connection to its end; whether another one may follow at once."""
        try:
            stream = Stream(device(self._settings))
        except Lost as error:
            self._say(str(error))
            return False
        try:
            store = Store(stream, self._system.monotonic)
            self._serve(stream, Session(store, self._system, self._desktop, self._timekeeper, notices))
        except Lost as error:
            self._say(str(error))
            return False
        except Renewed:
            log.info("the host is another one, or has forgotten this machine")
            return False
        finally:
            stream.close()
        return True

    def _serve(self, stream: Stream, session: Session) -> None:
        """Raises `Lost` and `Renewed`; ends when the agent does."""
        notices = session.notices
        session.begin()
        self._delay = FIRST_DELAY
        self._say("connected as domain {}".format(session.domain[:8].decode("ascii", "replace")))
        waiting = [self._woken, stream.descriptor] + ([notices.fileno()] if notices is not None else [])
        while not self._stopped:
            session.work()
            wait(waiting, session.due() - self._system.monotonic())

    def _say(self, text: str) -> None:
        """Log what is new: attempts that fail for the same reason are one line."""
        if text != self._said:
            log.info("%s", text)
            self._said = text


def _notices() -> Optional[socket.socket]:
    try:
        return netlink.notices()
    except OSError as error:
        log.error("changes of addresses are seen once a minute only: %s", error)
        return None
