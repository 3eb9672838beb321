"""A snapshot of the host as families of series, and those as text, by Prometheus's own library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from domzero.toolstack.rrd.host_sources import MIB, SHORT
from domzero.toolstack.rrd.prometheus import Machine, Snapshot

DRIVES_MOST = 16
CARDS_MOST = 8
VERSIONS = frozenset({"0.0.4", "1.0.0"})
"""Of the two forms of text, those that are written here."""

Rows = Iterable[tuple[tuple[str, ...], float]]


def expose(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """The text in the form that an `Accept` header asks for, and its media type."""
    encode, content_type = choose_encoder(known_forms(accept))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(snapshot))
    return encode(registry), content_type


def known_forms(accept: str) -> str:
    """The parts of an `Accept` header that ask for no version which is not written here.

    The library stumbles over versions that are no numbers, and promises whatever greater one it is asked for.
    """
    parts = accept.replace('"', "").split(",")
    return ",".join(part for part in parts if VERSIONS.issuperset(_versions(part)))


def _versions(part: str) -> Iterator[str]:
    for parameter in part.split(";"):
        name, equals, value = parameter.partition("=")
        if equals and name.strip().lower() == "version":
            yield value.strip()


@dataclass(frozen=True, slots=True, eq=False)
class _Families(Collector):
    snapshot: Snapshot

    def collect(self) -> Iterator[Metric]:
        yield from _host(self.snapshot)
        yield from _machines(self.snapshot.machines)
        yield from _drives(self.snapshot.machines)
        yield from _cards(self.snapshot.machines)
        yield from _repositories(self.snapshot)


def _gauge(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        if value == value:
            family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _host(snapshot: Snapshot) -> Iterator[Metric]:
    values = snapshot.host_values

    def of(name: str, scale: float = 1.0) -> Rows:
        return [((), values[name] * scale)] if name in values else []

    def numbered(prefix: str, suffix: str = "") -> Rows:
        found = ((name.removeprefix(prefix).removesuffix(suffix), value) for name, value in values.items()
                 if name.startswith(prefix) and name.endswith(suffix))  # fmt: skip
        return [((middle,), value) for middle, value in found if middle != "aggr" and not middle.startswith("_")]

    info = InfoMetricFamily("domzero_host", "The host")
    info.add_metric((), {"uuid": snapshot.host, "name": snapshot.host_name, "version": snapshot.version})
    yield info
    yield _gauge("domzero_host_cpu_usage_ratio", "Busy fraction of each processor of the host", ("cpu",),
                 numbered("cpu"))  # fmt: skip
    yield _gauge("domzero_host_load_average", "Tasks that run or want to, over a minute", (), of("loadavg"))
    yield _gauge("domzero_host_memory_bytes", "Memory of the host", (), of("memory_total_kib", 1024))
    yield _gauge("domzero_host_memory_free_bytes", "Memory that new machines could have", (),
                 of("memory_free_kib", 1024))  # fmt: skip
    for end, verb in (("rx", "received"), ("tx", "sent")):
        yield _gauge(f"domzero_host_interface_{verb}_bytes_per_second", f"Bytes {verb} by each interface of the host",
                     ("device",), numbered("pif_", f"_{end}"))  # fmt: skip
    yield _gauge("domzero_sessions", "Sessions of clients", (), of("pool_session_count"))
    yield _gauge("domzero_tasks", "Tasks that are kept", (), of("pool_task_count"))
    yield _gauge("domzero_toolstack_resident_memory_bytes", "Memory that the toolstack takes", (),
                 of("xapi_memory_usage_kib", 1024))  # fmt: skip
    yield _gauge("domzero_toolstack_open_fds", "Files that the toolstack has open", (), of("xapi_open_fds"))
    yield _gauge("domzero_vms", "Machines by power state", ("power_state",),
                 [((state,), count) for state, count in sorted(snapshot.states.items())])  # fmt: skip
    yield _gauge("domzero_vms_left_out", "Machines that run and are not shown, for there are too many", (),
                 [((), snapshot.left_out)])  # fmt: skip


def _machines(machines: tuple[Machine, ...]) -> Iterator[Metric]:
    info = InfoMetricFamily("domzero_vm", "Machines that run", labels=("uuid",))
    for machine in machines:
        info.add_metric((machine.uuid,), {"name": machine.name})
    yield info
    statistics = [((machine.uuid,), machine.reading.statistics) for machine in machines]
    yield _counter("domzero_vm_cpu_seconds_total", "Processor time that the machine used", ("uuid",),
                   [(uuid, sum(it.cpu_seconds)) for uuid, it in statistics])  # fmt: skip
    yield _gauge("domzero_vm_vcpus", "Virtual processors of the machine", ("uuid",),
                 [(uuid, len(it.cpu_seconds)) for uuid, it in statistics])  # fmt: skip
    yield _gauge("domzero_vm_memory_bytes", "Memory that the machine has", ("uuid",),
                 [(uuid, it.memory_actual) for uuid, it in statistics])  # fmt: skip
    yield _gauge("domzero_vm_memory_target_bytes", "Memory that the machine is meant to have", ("uuid",),
                 [((machine.uuid,), machine.reading.memory_target) for machine in machines])  # fmt: skip


def _drives(machines: tuple[Machine, ...]) -> Iterator[Metric]:
    labels = ("uuid", "device")
    drives = [
        ((machine.uuid, name), machine.reading.statistics.disks[slot])
        for machine in machines
        for slot, name in islice(machine.reading.drives.items(), DRIVES_MOST)
    ]
    yield _counter("domzero_vm_disk_read_bytes_total", "Bytes read from the drive", labels,
                   [(key, it.read_bytes) for key, it in drives])  # fmt: skip
    yield _counter("domzero_vm_disk_written_bytes_total", "Bytes written to the drive", labels,
                   [(key, it.written_bytes) for key, it in drives])  # fmt: skip
    counted = [(key, it.requests) for key, it in drives if it.requests is not None]
    yield _counter("domzero_vm_disk_reads_total", "Reads that the drive finished", labels,
                   [(key, it.reads) for key, it in counted])  # fmt: skip
    yield _counter("domzero_vm_disk_writes_total", "Writes that the drive finished", labels,
                   [(key, it.writes) for key, it in counted])  # fmt: skip
    yield _counter("domzero_vm_disk_read_seconds_total", "Time that reads took, added up", labels,
                   [(key, it.read_seconds) for key, it in counted])  # fmt: skip
    yield _counter("domzero_vm_disk_write_seconds_total", "Time that writes took, added up", labels,
                   [(key, it.write_seconds) for key, it in counted])  # fmt: skip


def _cards(machines: tuple[Machine, ...]) -> Iterator[Metric]:
    labels = ("uuid", "device")
    cards = [
        ((machine.uuid, str(slot)), counted)
        for machine in machines
        for slot, counted in islice(machine.reading.traffic.items(), CARDS_MOST)
    ]
    yield _counter("domzero_vm_network_received_bytes_total", "Bytes that the machine received by the card", labels,
                   [(key, it.received_bytes) for key, it in cards])  # fmt: skip
    yield _counter("domzero_vm_network_sent_bytes_total", "Bytes that the machine sent by the card", labels,
                   [(key, it.sent_bytes) for key, it in cards])  # fmt: skip


def _repositories(snapshot: Snapshot) -> Iterator[Metric]:
    info = InfoMetricFamily("domzero_sr", "Storage repositories", labels=("uuid",))
    for uuid, name, _, _ in snapshot.repositories:
        info.add_metric((uuid,), {"name": name})
    yield info
    sized = [it for it in snapshot.repositories if it[2] > 0]
    yield _gauge("domzero_sr_size_bytes", "Size of the repository", ("uuid",), [((it[0],), it[2]) for it in sized])
    yield _gauge("domzero_sr_used_bytes", "Bytes of the repository that are used", ("uuid",),
                 [((it[0],), it[3]) for it in sized])  # fmt: skip
    rates = snapshot.host_values
    for word, verb in (("read", "read from"), ("write", "written to")):
        prefix = f"io_throughput_{word}_"
        yield _gauge(f"domzero_sr_{word}_bytes_per_second", f"Bytes {verb} the repository", ("uuid",), [
            ((it[0],), rates[prefix + it[0][:SHORT]] * MIB)
            for it in snapshot.repositories if prefix + it[0][:SHORT] in rates
        ])  # fmt: skip
