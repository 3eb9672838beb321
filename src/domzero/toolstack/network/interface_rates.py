"""How much passes the host's own interfaces: the rates of PIF_metrics, and the links as they are now."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any

from domzero.engine.clock import moment
from domzero.host.network.protocol import DeviceState, InterfaceInfo, NetworkError
from domzero.idl.types import NULL_REF
from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)

INTERVAL = 15.0
"""Seconds between two looks at least: reading interfaces costs more than reading a machine's counters."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """One interface or bond at one moment."""

    at: float
    received: int
    sent: int


@dataclass(frozen=True, slots=True)
class InterfaceRate:
    """Bytes per second of one interface or bond; NaN while only one look was taken."""

    received: float
    sent: float
    physical: bool


@dataclass(slots=True)
class InterfaceRates:
    """Call `measure` as often as convenient."""

    stack: Stack
    latest: dict[str, InterfaceRate] = field(default_factory=dict)
    """By device: those of the last look."""
    _before: dict[str, _Counted] = field(default_factory=dict)
    _measured: float | None = None

    async def measure(self) -> None:
        """One look, when the last one is long enough ago. A host that does not tell is asked again next time."""
        now = self.stack.clock.monotonic()
        if self._measured is not None and now - self._measured < INTERVAL:
            return
        self._measured = now
        try:
            interfaces = await self.stack.network.interfaces()
            bonds = await self.stack.network.devices()
        except (NetworkError, OSError) as error:
            log.debug("the host's interfaces could not be measured: %s", error)
            return
        self._write(interfaces, bonds)

    def _write(self, interfaces: list[InterfaceInfo], devices: list[DeviceState]) -> None:
        database, now = self.stack.database, self.stack.clock.monotonic()
        found: dict[str, InterfaceInfo | DeviceState] = {state.name: state for state in devices}
        found |= {interface.name: interface for interface in interfaces}
        latest = {}
        with database.transaction(observed=True) as transaction:
            for row in list(database.rows("PIF").values()):
                pif = row.record
                state = found.get(pif["device"])
                if pif["host"] != self.stack.host or pif["VLAN_master_of"] != NULL_REF or state is None:
                    continue
                counted = _Counted(now, state.received_bytes, state.sent_bytes)
                rate = _rate(self._before.get(state.name), counted, physical=isinstance(state, InterfaceInfo))
                latest[state.name] = rate
                figures = {**_link(state), **figures_of(rate)}
                metrics = database.find("PIF_metrics", pif["metrics"])
                if metrics is not None and any(metrics.record[name] != value for name, value in figures.items()):
                    moved = moment(self.stack.clock.now())
                    transaction.update("PIF_metrics", metrics.ref, last_updated=moved, **figures)
                self._before[state.name] = counted
        self.latest = latest


def _link(state: InterfaceInfo | DeviceState) -> dict[str, Any]:
    """What a bond's own driver does not tell is put together from its members elsewhere."""
    if isinstance(state, DeviceState):
        return {}
    return {"carrier": state.carrier, "speed": state.speed, "duplex": state.duplex}


def _rate(before: _Counted | None, after: _Counted, *, physical: bool) -> InterfaceRate:
    """The rate between two moments. A counter that went back counts as none."""
    if before is None or after.at <= before.at:
        return InterfaceRate(math.nan, math.nan, physical)
    seconds = after.at - before.at
    received = max(0, after.received - before.received) / seconds
    return InterfaceRate(received, max(0, after.sent - before.sent) / seconds, physical)


def figures_of(rate: InterfaceRate) -> dict[str, float]:
    """Fields of PIF_metrics: KiB per second; nothing while nothing is known."""
    if math.isnan(rate.received):
        return {}
    return {"io_read_kbs": round(rate.received / 1024, 3), "io_write_kbs": round(rate.sent / 1024, 3)}
