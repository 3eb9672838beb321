"""Tells of what `other_config:perfmon` of machines, hosts and repositories asks for, by messages named ALARM."""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from domzero.engine.errors import ApiError
from domzero.finish import in_thread
from domzero.idl.types import NULL_REF
from domzero.toolstack.message import create
from domzero.toolstack.rrd.archive import Archive
from domzero.toolstack.rrd.columns import RESOLUTIONS
from domzero.toolstack.rrd.export import Owner
from domzero.toolstack.rrd.host_sources import SHORT
from domzero.toolstack.rrd.owners import CLASSES
from domzero.toolstack.rrd.perfmon import (
    KEY,
    SR_PER_HOST,
    PerfmonError,
    Variable,
    Watch,
    body,
    on_host,
    understood,
)
from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)

EVERY = float(RESOLUTIONS[1].seconds)
"""Seconds between two looks: values are averages of a minute."""
WORDS = {"vm": "VM", "host": "Host", "sr": "SR"}
"""Kind of owner → the message's `cls`."""
ALARM = "ALARM"


@dataclass(slots=True)
class Alarms:
    """Call `check` as often as convenient."""

    stack: Stack
    _watches: dict[tuple[Owner, Variable], Watch] = field(default_factory=dict)
    _refused: set[tuple[Owner, str]] = field(default_factory=set)
    _minute: int | None = None
    _checked: float = math.nan

    async def check(self) -> None:
        """One look, when a minute has ended since the last one. Variables that are wanted no more are forgotten."""
        now = self.stack.archives.now()
        minute = int(now // EVERY)
        if self._minute is None or minute == self._minute:
            self._minute = minute
            return
        self._minute = minute
        wanted = list(self._wanted())
        watches = {}
        latest: dict[Owner, Mapping[str, float]] = {}
        for owner, variable in wanted:
            await asyncio.sleep(0)  # there may be many, and others want their turn
            watch = self._watches.get((owner, variable), Watch())
            watches[owner, variable] = watch
            try:
                if owner not in latest:
                    latest[owner] = await self._latest(owner)
                value = variable.value(latest[owner])
                if watch.check(variable, value, now, EVERY):
                    self._tell(owner, variable, value)
            except ApiError as error:
                log.debug("%s went while it was looked at: %s", owner, error)
        self._watches = watches

    def _wanted(self) -> Iterator[tuple[Owner, Variable]]:
        database = self.stack.database
        host = Owner("host", database.get("host", self.stack.host, "uuid"))
        for kind, cls in CLASSES.items():
            for row in list(database.rows(cls).values()):
                text = row.record["other_config"].get(KEY)
                if not text or (cls == "VM" and row.record["power_state"] != "Running"):
                    continue
                owner = Owner(kind, row.record["uuid"])
                for variable in self._parsed(owner, text):
                    if variable.name == SR_PER_HOST:
                        yield host, on_host(variable, owner.uuid[:SHORT])
                    else:
                        yield owner, variable

    def _parsed(self, owner: Owner, text: str) -> tuple[Variable, ...]:
        found = understood(text)
        if not isinstance(found, PerfmonError):
            return found
        if (owner, text) not in self._refused:
            self._refused = {entry for entry in self._refused if entry[0] != owner} | {(owner, text)}
            log.warning("other_config:%s of %s asks for nothing that can be done: %s", KEY, owner, found)
        return ()

    async def _latest(self, owner: Owner) -> Mapping[str, float]:
        database, archives = self.stack.database, self.stack.archives
        archive = archives.get(owner)
        found = {} if archive is None else last_minute(archive)
        if owner.kind == "sr":
            record = database.record("SR", database.by_uuid("SR", owner.uuid))
            if record["physical_size"] > 0:
                found["physical_utilisation"] = record["physical_utilisation"] / record["physical_size"]
        elif owner.kind == "vm" and database.by_uuid("VM", owner.uuid) == self._control_domain():
            found |= await self._of_control_domain()
        return found

    def _control_domain(self) -> str:
        found = self.stack.database.get("host", self.stack.host, "control_domain")
        return "" if found == NULL_REF else str(found)

    async def _of_control_domain(self) -> dict[str, float]:
        database = self.stack.database
        metrics = database.record("host_metrics", database.get("host", self.stack.host, "metrics"))
        total = metrics["memory_total"]
        return {
            "mem_usage": 1 - metrics["memory_free"] / total if total else math.nan,
            "fs_usage": await in_thread(_used, "/"),
            "log_fs_usage": await in_thread(_used, str(self.stack.settings.state_dir)),
        }

    def _tell(self, owner: Owner, variable: Variable, value: float) -> None:
        context = self.stack.contexts.background(KEY)
        try:
            text = body(variable, value)
            create(self.stack, context, ALARM, variable.priority, WORDS[owner.kind], owner.uuid, text)
        finally:
            self.stack.tasks.release(context.task)


def last_minute(archive: Archive) -> dict[str, float]:
    """The average of the last finished minute, of each recorded source."""
    row = archive.steps_done // RESOLUTIONS[1].steps
    return {
        source.name: archive.rows(at, 1, "AVERAGE", row, row)[0]
        for at, source in enumerate(archive.sources)
        if archive.columns[at] is not None
    }


def _used(path: str) -> float:
    """The used fraction of a file system; NaN where it cannot be told."""
    try:
        found = shutil.disk_usage(path)
    except OSError as error:
        log.debug("%s cannot be measured: %s", path, error)
        return math.nan
    return found.used / found.total if found.total else math.nan
