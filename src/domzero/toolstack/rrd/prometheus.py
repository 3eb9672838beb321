"""`GET /metrics`: what is measured now, for Prometheus.

Counters are given as counters, for Prometheus makes its own rates; names and units follow its conventions. Machines are
told apart by uuid; `domzero_vm_info` gives the name to a uuid. How many series there can be is limited: so many
machines, and of each so many drives and cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from domzero.engine.context import Context
from domzero.engine.exchange import Arguments, Peer, serves
from domzero.finish import in_thread
from domzero.toolstack.rrd.export import Owner
from domzero.toolstack.rrd.machine_sources import Reading
from domzero.toolstack.stack import Stack

MACHINES_MOST = 4096
NAME_MOST = 128
"""Characters of a name that are shown."""


@serves("GET", "/metrics", role="read-only", label="Metrics", task=False)
async def metrics(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """The latest readings, in the text form of Prometheus or in that of OpenMetrics, as the client prefers."""
    text, content_type = await in_thread(_exposed, take(stack), peer.header("accept") or "")
    peer.begin(headers=(("content-type", content_type),), length=len(text))
    await peer.write(text)


def _exposed(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    # The library is loaded when somebody asks: it would cost every start a few hundredths of a second.
    from domzero.toolstack.rrd.exposition import expose

    return expose(snapshot, accept)


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that runs."""

    uuid: str
    name: str
    reading: Reading


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is shown, at one moment."""

    version: str
    host: str
    host_name: str
    host_values: Mapping[str, float]
    """The latest value of each of the host's sources."""
    states: Mapping[str, int]
    """How many machines are in each power state."""
    machines: tuple[Machine, ...]
    left_out: int
    repositories: tuple[tuple[str, str, float, float], ...]
    """Uuid, name, and bytes: the size and what of it is used."""


def take(stack: Stack) -> Snapshot:
    """The state of the host now."""
    database = stack.database
    host = database.record("host", stack.host)
    archive = stack.archives.get(Owner("host", host["uuid"]))
    states: dict[str, int] = {}
    for row in database.rows("VM").values():
        record = row.record
        if not (record["is_a_template"] or record["is_a_snapshot"] or record["is_control_domain"]):
            states[record["power_state"]] = states.get(record["power_state"], 0) + 1
    readings = stack.archives.readings
    machines = tuple(
        Machine(found.record["uuid"], found.record["name_label"][:NAME_MOST], reading)
        for vm, reading in islice(readings.items(), MACHINES_MOST)
        if (found := database.find("VM", vm)) is not None
    )
    repositories = tuple(
        (it["uuid"], it["name_label"][:NAME_MOST], float(it["physical_size"]), float(it["physical_utilisation"]))
        for it in (row.record for row in islice(database.rows("SR").values(), MACHINES_MOST))
    )
    return Snapshot(
        stack.settings.version,
        host["uuid"],
        host["name_label"][:NAME_MOST],
        {} if archive is None else {it.source.name: it.value for it in archive.measured()},
        states,
        machines,
        max(0, len(readings) - MACHINES_MOST),
        repositories,
    )
