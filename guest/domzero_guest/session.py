"""One connection to the host, from its first request until it breaks: what is watched, told and obeyed."""

import logging
import socket
from typing import Callable, Dict, Optional

from . import netlink, power, processors, report
from .desktop import Desktop
from .reporter import UPDATED, Reporter
from .store import Refused, Store
from .system import System
from .timesync import Timekeeper

log = logging.getLogger(__name__)

SHUTDOWN, SYSRQ, TS, TS_STATE = "control/shutdown", "control/sysrq", "control/ts", "data/ts"
PROCESSORS, CARDS = "cpu", "device/vif"
REPORT = 60.0
"""Seconds between two looks at what nobody tells of: memory, disks."""
LOOK = 5.0
"""Seconds between two looks whether the host still is the one that was connected to."""
PLUGGING = 0.25
"""Seconds until the next look at processors that are not what they are to be; later ones come ever more seldom."""
ADDRESSES = 0.2
"""Seconds between two reports of addresses, however often they change."""
MOST_CARDS = 16
FEATURES = (
    "control/feature-shutdown",
    "control/feature-poweroff",
    "control/feature-halt",
    "control/feature-reboot",
    "control/feature-suspend",
    "control/feature-sysrq",
    "feature/hotplug/vbd",
    "feature/hotplug/vif",
)
"""What every Linux can that the agent runs on."""


class Renewed(Exception):  # noqa: N818 - a state that the agent goes on from
    """The machine is another domain than it was, or the host has forgotten what it was told: all begins anew."""


class Session:
    """What is done over one connection. Raises `Lost` and `Renewed` from every method but those that say otherwise."""

    def __init__(
        self,
        store: Store,
        system: System,
        desktop: Desktop,
        timekeeper: Optional[Timekeeper],
        notices: Optional[socket.socket],
    ) -> None:
        self.domain = b""
        self._store = store
        self._system = system
        self._desktop = desktop
        self._timekeeper = timekeeper
        self.notices = notices
        self._reporter = Reporter(store)
        self._cards: Dict[int, str] = {}
        self._processors_wanted: Dict[int, bytes] = {}
        self._processors_asked = 0.0
        self._measured: report.Nodes = {}
        self._report_at = float("-inf")
        self._look_at = self._addresses_at = self._switch_at = float("inf")
        self._addresses_told = float("-inf")
        self._obey: Dict[str, Callable[[], None]] = {
            SHUTDOWN: self._shutdown,
            SYSRQ: self._sysrq,
            PROCESSORS: self._processors,
            CARDS: self._learn_cards,
        }
        if desktop.is_offered:
            self._obey.update({TS: self._switch_desktop, TS_STATE: self._desktop_asked})

    def begin(self) -> None:
        """Watch, say what can be done, and report everything."""
        self.domain = self._read("domid")
        self._look_at_clock()
        self._watch_all()
        for feature in FEATURES:
            self._reporter.set(feature, "1")
        self._reporter.set("control/feature-vcpu-hotplug", str(int(processors.can_change(self._system.root))))
        if self._desktop.is_offered:
            self._reporter.set("control/feature-ts", "1")
            self._reporter.set("control/feature-ts2", "1")
            self._report_desktop()
        self._learn_cards()
        self._report()
        self._look_at = self._system.monotonic() + LOOK

    def due(self) -> float:
        """The monotonic time at which `work` has to be called next, at the latest."""
        if self._store.has_changed():
            return float("-inf")
        return min(self._look_at, self._report_at, self._addresses_at, self._switch_at)

    def work(self) -> None:
        """Obey what has come and do what is due, without waiting for anything."""
        for path in self._store.take_changed():
            self._obey[path]()
        now = self._system.monotonic()
        if self.notices is not None and netlink.drain(self.notices):
            self._addresses_at = min(self._addresses_at, max(now, self._addresses_told + ADDRESSES))
        if now >= self._switch_at:
            self._switch_processors()
        if now >= self._look_at:
            self._look()
        if now >= self._report_at or now >= self._addresses_at:
            self._report()

    def _read(self, path: str) -> bytes:
        """A node's value, nothing where it is not there or not to be seen."""
        try:
            return self._store.read(path)
        except Refused:
            return b""

    def _acknowledge(self, path: str) -> bool:
        """Take a request; whether the host lets it be taken. One that stays would be obeyed for ever."""
        try:
            self._store.write(path, b"")
        except Refused as error:
            log.error("%s cannot be acknowledged: %s", path, error.code)
            return False
        return True

    def _watch_all(self) -> None:
        for path in self._obey:
            try:
                self._store.watch(path)
            except Refused as error:
                log.error("%s cannot be watched: %s", path, error.code)

    def _look_at_clock(self) -> None:
        if self._timekeeper is not None:
            self._timekeeper.look()

    def _look(self) -> None:
        self._look_at_clock()
        if self._read("domid") != self.domain or (self._reporter.has_told and not self._read(UPDATED)):
            raise Renewed
        if not self._store.is_watched(SHUTDOWN):
            # The host has noticed late that another program had the port before us, and has let go of its watches.
            self._watch_all()
        self._look_at = self._system.monotonic() + LOOK

    def _report(self) -> None:
        """Everything at once: what has not changed costs nothing. What nobody tells of is looked at when it is due."""
        system = self._system
        now = system.monotonic()
        if now >= self._report_at:
            self._measured = system.nodes()
            self._report_at = now + REPORT
        self._reporter.tell({**self._measured, **system.card_nodes(self._cards)}, now, system.now())
        self._addresses_told, self._addresses_at = now, float("inf")

    def _learn_cards(self) -> None:
        """The host's numbers of the cards, by their MAC addresses."""
        try:
            names = self._store.children(CARDS)
        except Refused:
            names = []
        numbers = processors.numbers(names)[:MOST_CARDS]
        found = {number: self._read("{}/{}/mac".format(CARDS, number)) for number in numbers}
        self._cards = {number: mac.decode("ascii", "replace").lower() for number, mac in found.items() if mac}
        self._addresses_at = self._system.monotonic()

    def _shutdown(self) -> None:
        value = self._read(SHUTDOWN)
        asked = power.shutdown(value, self._system.has_systemd)
        if asked is None:
            if value:
                log.warning("the host asks for %r, which means nothing", value[:32])
            return
        if not self._acknowledge(SHUTDOWN):
            return
        log.info("the host asks for %s", asked.action)
        if asked.command is not None:
            done = self._system.run(asked.command)
            if done.code:
                log.error("%s failed with code %d", " ".join(asked.command), done.code)
        else:
            # The machine is saved from outside; should what is saved be lost, the disks are in order.
            self._system.sync()

    def _sysrq(self) -> None:
        value = self._read(SYSRQ)
        if not value or not self._acknowledge(SYSRQ):
            return
        key = power.sysrq_key(value, self._system.allowed_keys())
        if key is None:
            log.warning("the key %r of the host is none, or not allowed by kernel.sysrq", value[:4])
            return
        log.info("the host presses SysRq-%s", key)
        self._system.put(self._system.path("proc/sysrq-trigger"), key)

    def _processors(self) -> None:
        try:
            numbers = processors.numbers(self._store.children(PROCESSORS))
        except Refused:
            return
        self._processors_wanted = {
            number: self._read("{}/{}/availability".format(PROCESSORS, number)) for number in numbers
        }
        self._processors_asked = self._system.monotonic()
        self._switch_processors()

    def _switch_processors(self) -> None:
        """Switch those that are there, and look again soon while one is not: the host plugs it in just now."""
        wanted, root = self._processors_wanted, self._system.root
        for path, state in processors.changes(root, wanted):
            self._system.put(path, state)
        if processors.are_settled(root, wanted):
            self._switch_at = float("inf")
        else:
            now = self._system.monotonic()
            self._switch_at = now + max(PLUGGING, (now - self._processors_asked) / 4)

    def _switch_desktop(self) -> None:
        """`control/ts`: acknowledged by its removal, then the state is reported anew because its node goes."""
        try:
            value = self._store.read(TS)
        except Refused:
            return
        if value in (b"1", b"0"):
            self._desktop.turn(value == b"1")
        else:
            log.warning("the host asks for remote desktop %r, which means nothing", value[:8])
        for path in (TS, TS_STATE):
            try:
                self._store.remove(path)
            except Refused as error:
                log.error("%s cannot be removed: %s", path, error.code)

    def _desktop_asked(self) -> None:
        try:
            self._store.read(TS_STATE)
        except Refused as error:
            if error.code == "ENOENT":
                self._report_desktop()

    def _report_desktop(self) -> None:
        try:
            self._store.write(TS_STATE, b"1" if self._desktop.is_on() else b"0")
        except Refused as error:
            log.error("%s cannot be written: %s", TS_STATE, error.code)
