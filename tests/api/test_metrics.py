"""History over the wire: asked for by curl, read by the standard library, xmllint, promtool and Prometheus's parser."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from domzero.host.clock import AdjustableClock
from domzero.toolstack.metrics import Metrics
from tests.api.harness import PASSWORD, InProcessHost, in_process, login
from tests.xe.terminal import local, printed, refused

TICKS = 15
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@dataclass
class Measured:
    """A host with a machine that was measured for more than a minute, and one that was halted again."""

    host: InProcessHost
    api: Any
    vm: str
    halted: str
    now: int

    def uuid(self, vm: str) -> str:
        return str(self.api.VM.get_uuid(vm))

    def asked(self, path: str, accept: str = "*/*") -> tuple[int, str]:
        """Status and media type of an answer, asked for over the Unix socket."""
        with local(self.host) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nAccept: {accept}\r\n\r\n".encode())
            answer = HTTPResponse(connection, method="GET")
            answer.begin()
            answer.close()
        return answer.status, answer.getheader("content-type", "")

    def curl(self, path: str, *options: str, user: str = f"root:{PASSWORD}") -> tuple[int, str, str]:
        """Status, media type and body of an answer."""
        words = ["curl", "-sk", "-u", user, "-w", "\n%{http_code} %{content_type}", *options, self.host.url + path]
        said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout
        body, _, last = said.rpartition("\n")
        status, _, kind = last.partition(" ")
        return int(status), kind, body


def tick(host: InProcessHost, metrics: Metrics) -> None:
    """Let five seconds pass, and measure, whether or not the host has done it already."""
    clock = host.daemon.stack.clock
    assert isinstance(clock, AdjustableClock)
    host.loop.call_soon_threadsafe(clock.advance, 5.0)
    host.run(metrics.measure())


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    with in_process(tmp_path_factory.mktemp("host")) as host:
        session = login(host.url)
        api = session.xenapi
        machines = [api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], f"machine {name}") for name in "12"]
        for vm in machines:
            api.VM.provision(vm)
            api.VM.add_to_other_config(vm, "sim:read-rate", str(100 << 20))
            api.VM.start(vm, False, False)
        metrics = Metrics(host.daemon.stack)
        for _ in range(3):
            tick(host, metrics)
        api.VM.hard_shutdown(machines[1])
        for _ in range(TICKS):
            tick(host, metrics)
        now = int(host.daemon.stack.clock.now().timestamp())
        yield Measured(host, api, machines[0], machines[1], now)


def legend(text: str) -> list[str]:
    return [entry.text or "" for entry in ET.fromstring(text).iterfind("meta/legend/entry")]


def test_updates_as_xml(measured: Measured) -> None:
    status, kind, text = measured.curl(f"/rrd_updates?start={measured.now - 60}")
    assert (status, kind) == (200, "text/xml")
    uuid = measured.uuid(measured.vm)
    assert {f"AVERAGE:vm:{uuid}:{name}" for name in ("cpu0", "memory", "vbd_xvda_read")} <= set(legend(text))
    assert all(name.startswith("AVERAGE:vm:") for name in legend(text))
    root = ET.fromstring(text)
    times = [int(row.findtext("t") or "") for row in root.findall("data/row")]
    assert times == sorted(times, reverse=True)
    assert len(times) >= 10
    assert min(times) > measured.now - 60
    values = [float(row.findall("v")[0].text or "") for row in root.findall("data/row")]
    assert any(not math.isnan(value) for value in values)
    if shutil.which("xmllint"):
        subprocess.run(["xmllint", "--noout", "-"], input=text, text=True, check=True)


def test_updates_as_json_as_xen_orchestra_asks_for_them(measured: Measured) -> None:
    path = f"/rrd_updates?cf=AVERAGE&host=true&interval=5&json=true&start={measured.now - 119 * 5}"
    status, kind, text = measured.curl(path)
    assert (status, kind) == (200, "application/json")
    found = json.loads(text)
    assert found["meta"]["step"] == 5
    assert {name.split(":")[1] for name in found["meta"]["legend"]} == {"host", "vm"}
    assert len(found["data"]) == found["meta"]["rows"]
    assert all(len(row["values"]) == found["meta"]["columns"] for row in found["data"])
    assert found["data"][0]["t"] == found["meta"]["end"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json", "application/json"), ("*/*", "text/xml"), ("text/xml, application/json;q=0.5", "text/xml"),
        ("text/xml;q=0.1, application/json", "application/json"), ("image/png", "text/xml"),
        ("application/json;q=rubbish", "text/xml"),
    ],
)  # fmt: skip
def test_what_the_client_prefers(measured: Measured, accept: str, kind: str) -> None:
    assert measured.asked("/host_rrd", accept) == (200, kind)


def test_updates_of_some(measured: Measured) -> None:
    start = f"start={measured.now - 60}"
    uuid, halted = measured.uuid(measured.vm), measured.uuid(measured.halted)
    control = measured.uuid(measured.api.host.get_control_domain(measured.api.host.get_all()[0]))
    sr = measured.api.SR.get_uuid(measured.api.pool.get_default_SR(measured.api.pool.get_all()[0]))
    for query, kinds in (
        (f"vm_uuid={uuid}", {f"vm:{uuid}"}),
        (f"vm_uuid={halted}", set()),
        (f"uuid={uuid}", {f"vm:{uuid}"}),
        ("vm_uuid=none", set()),
        (f"sr_uuid={sr}&vm_uuid=none", {f"sr:{sr}"}),
        ("sr_uuid=all&vm_uuid=none", {f"sr:{sr}"}),
        ("vm_uuid=all", {f"vm:{uuid}", f"vm:{control}"}),
        (f"vm_uuid={uuid}&vm_uuid={control}", {f"vm:{uuid}", f"vm:{control}"}),
        (f"vm_uuid={uuid},{control}", {f"vm:{uuid}", f"vm:{control}"}),
    ):
        names = legend(measured.curl(f"/rrd_updates?{start}&{query}")[2])
        assert {":".join(name.split(":")[1:3]) for name in names} == kinds, query


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/rrd_updates", 400), ("/rrd_updates?start=", 400), ("/rrd_updates?start=soon", 400),
        ("/rrd_updates?start=99999999999999999999", 400), ("/rrd_updates?start=nan", 400),
        ("/rrd_updates?start=0&interval=-5", 400), ("/rrd_updates?start=0&interval=x", 400),
        ("/rrd_updates?start=0&cf=MEDIAN", 400), ("/rrd_updates?start=0&cf=average", 400),
        ("/rrd_updates?start=0&host=maybe", 400), ("/rrd_updates?start=0&json=maybe", 400),
        ("/rrd_updates?start=0&vm_uuid=../x", 404), ("/rrd_updates?start=0&sr_uuid=OpaqueRef:NULL", 404),
        ("/vm_rrd", 400), ("/vm_rrd?uuid=", 400), ("/vm_rrd?uuid=../../etc/passwd", 404), ("/vm_rrd?uuid=%00", 404),
        ("/host_rrd?uuid=none", 404), ("/host_rrd?json=2", 400), ("/sr_rrd", 400), ("/sr_rrd?uuid=x", 404),
    ],
)  # fmt: skip
def test_bad_queries(measured: Measured, path: str, status: int) -> None:
    assert measured.asked(path)[0] == status


@pytest.mark.parametrize(
    "path",
    ["/rrd_updates?start=-5", "/rrd_updates?start=12.75", "/rrd_updates?start=9007199254740992",
     "/rrd_updates?start=0&interval=9007199254740992", "/rrd_updates?start=0&cf=LAST", "/rrd_updates?start=0&json="],
)  # fmt: skip
def test_queries_that_are_only_odd(measured: Measured, path: str) -> None:
    assert measured.asked(path)[0] == 200


def test_whole_archives(measured: Measured) -> None:
    sr = measured.api.SR.get_uuid(measured.api.pool.get_default_SR(measured.api.pool.get_all()[0]))
    uuid, halted = measured.uuid(measured.vm), measured.uuid(measured.halted)
    for path, name in (
        (f"/vm_rrd?uuid={uuid}", "cpu0"), (f"/vm_rrds?uuid={uuid}", "cpu0"), (f"/vm_rrd?uuid={halted}", "memory"),
        ("/host_rrd", "loadavg"), ("/host_rrds", "loadavg"), (f"/sr_rrd?uuid={sr}", "io_throughput_read"),
    ):  # fmt: skip
        status, kind, text = measured.curl(path)
        assert (status, kind) == (200, "text/xml"), path
        assert name in [source.findtext("name") for source in ET.fromstring(text).findall("ds")]
        same = json.loads(measured.curl(path + ("&" if "?" in path else "?") + "json=true")[2])
        assert name in [source["name"] for source in same["ds"]]
    never = measured.api.VM.clone(measured.halted, "never started")
    assert measured.curl(f"/vm_rrd?uuid={measured.uuid(never)}")[0] == 404


def cells(dump: str) -> list[list[str]]:
    return [[row.text or "" for row in rra.findall("database/row/v")] for rra in ET.fromstring(dump).findall("rra")]


def test_history_is_taken_from_another_machine(measured: Measured, tmp_path: Path) -> None:
    vm = measured.api.VM.clone(measured.halted, "moved here")
    uuid, file = measured.uuid(vm), tmp_path / "history.xml"
    history = measured.curl(f"/vm_rrd?uuid={measured.uuid(measured.halted)}")[2]
    file.write_text(history)
    assert measured.curl(f"/vm_rrd?uuid={uuid}")[0] == 404
    assert measured.curl(f"/rrd?uuid={uuid}&archive=true", "-T", str(file))[0] == 200
    status, _, taken = measured.curl(f"/vm_rrd?uuid={uuid}")
    assert (status, cells(taken)) == (200, cells(history))
    assert any(cell != "NaN" for rows in cells(taken) for cell in rows)
    measured.api.VM.destroy(vm)


def test_histories_that_are_not_taken(measured: Measured, tmp_path: Path) -> None:
    file, uuid = tmp_path / "history.xml", measured.uuid(measured.halted)
    file.write_text("<rrd><step>60</step></rrd>")
    before = measured.curl(f"/vm_rrd?uuid={uuid}")[2]
    measured.host.run(measured.host.daemon.engine.users.add("operator", PASSWORD, "pool-operator"))
    put = ("-T", str(file))
    assert measured.curl(f"/rrd?uuid={uuid}", *put, user=f"operator:{PASSWORD}")[0] == 403
    assert measured.curl(f"/rrd?uuid={uuid}", *put)[0] == 400
    assert measured.curl("/rrd", *put)[0] == 400
    assert measured.curl(f"/rrd?uuid={uuid}&archive=maybe", *put)[0] == 400
    assert measured.curl("/rrd?uuid=../x", *put)[0] == 404
    assert measured.curl(f"/rrd?uuid={uuid}", *put, "-H", "Transfer-Encoding: chunked")[0] == 411
    file.write_bytes(b"<rrd>" + bytes(9 << 20))
    assert measured.curl(f"/rrd?uuid={uuid}", *put)[0] == 413
    assert cells(measured.curl(f"/vm_rrd?uuid={uuid}")[2]) == cells(before)


@pytest.mark.skipif(shutil.which("rrdtool") is None, reason="rrdtool is not installed")
def test_rrdtool_restores_what_is_served(measured: Measured, tmp_path: Path) -> None:
    dump, file = tmp_path / "dump.xml", tmp_path / "file.rrd"
    dump.write_text(measured.curl(f"/vm_rrd?uuid={measured.uuid(measured.vm)}")[2])
    subprocess.run(["rrdtool", "restore", dump, file], check=True)
    said = subprocess.run(["rrdtool", "fetch", file, "AVERAGE", "-s", str(measured.now - 60), "-e", str(measured.now)],
                          check=True, capture_output=True, text=True).stdout  # fmt: skip
    assert "vbd_xvda_read" in said.splitlines()[0].split()


def test_nobody_is_told_without_a_password(measured: Measured) -> None:
    for path in ("/rrd_updates?start=0", "/vm_rrd?uuid=x", "/host_rrd", "/sr_rrd?uuid=x", "/metrics"):
        words = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}"]
        for query, status in (("", "401"), ("session_id=OpaqueRef:none", "401")):
            mark = "&" if "?" in path else "?"
            said = subprocess.run([*words, f"{measured.host.url}{path}{mark}{query}"], check=True, capture_output=True)
            assert said.stdout.decode() == status, path


def test_prometheus(measured: Measured) -> None:
    status, kind, text = measured.curl("/metrics")
    assert status == 200
    assert kind.startswith("text/plain; version=")
    parsed = text_string_to_metric_families(text)
    families = {family.name: family for family in parsed}
    assert all(family.documentation and family.type != "unknown" for family in families.values())
    uuid = measured.uuid(measured.vm)
    (processor,) = families["domzero_vm_cpu_seconds"].samples
    assert (processor.labels, processor.name) == ({"uuid": uuid}, "domzero_vm_cpu_seconds_total")
    assert processor.value > 0
    (info,) = families["domzero_vm_info"].samples
    assert info.labels == {"uuid": uuid, "name": "machine 1"}
    assert {(it.labels["power_state"], it.value) for it in families["domzero_vms"].samples} == {
        ("Running", 1), ("Halted", halted_machines(measured)),
    }  # fmt: skip
    if shutil.which("promtool"):
        subprocess.run(["promtool", "check", "metrics"], input=text, text=True, check=True)


def halted_machines(measured: Measured) -> int:
    return sum(
        not (it["is_a_template"] or it["is_control_domain"]) and it["power_state"] == "Halted"
        for it in measured.api.VM.get_all_records().values()
    )


def test_openmetrics(measured: Measured) -> None:
    status, kind, text = measured.curl("/metrics", "-H", f"Accept: {OPENMETRICS}")
    assert (status, kind.partition(";")[0]) == (200, "application/openmetrics-text")
    families = parse_openmetrics(text)  # type: ignore[no-untyped-call]  # the library has no types here
    assert "domzero_vm_memory_bytes" in {family.name for family in families}


@pytest.mark.parametrize("version", ["x", '"1.0.0"', "9999", "1..0"])
def test_versions_of_openmetrics_that_are_not_there(measured: Measured, version: str) -> None:
    status, kind = measured.asked("/metrics", f"application/openmetrics-text; version={version}")
    assert (status, "9999" in kind) == (200, False)


def test_who_may_only_read_may_see_it(measured: Measured) -> None:
    measured.host.run(measured.host.daemon.engine.users.add("reader", PASSWORD, "read-only"))
    for path in ("/metrics", "/host_rrd", f"/rrd_updates?start={measured.now - 10}"):
        assert measured.curl(path, user=f"reader:{PASSWORD}")[0] == 200


def names(listed: str) -> set[str]:
    return {value.strip() for key, _, value in (it.partition(":") for it in listed.splitlines()) if "name_label" in key}


def test_xe(measured: Measured) -> None:
    host, uuid = measured.host, measured.uuid(measured.vm)
    listed = printed(host, "vm-data-source-list", f"uuid={uuid}")
    assert names(listed) >= {"cpu0", "memory", "vbd_xvda_read"}
    assert float(printed(host, "vm-data-source-query", f"uuid={uuid}", "data-source=memory")) == 256 << 20
    assert printed(host, "vm-data-source-record", f"uuid={uuid}", "data-source=cpu_usage") == ""
    assert printed(host, "vm-data-source-forget", f"uuid={uuid}", "data-source=cpu_usage") == ""
    assert printed(host, "vm-param-get", f"uuid={uuid}", "param-name=VCPUs-utilisation").strip() == "0: 0.020"
    assert "nonsense" in refused(host, "vm-data-source-query", f"uuid={uuid}", "data-source=nonsense")
    assert "loadavg" in names(printed(host, "host-data-source-list"))
    assert float(printed(host, "host-data-source-query", "data-source=memory_total_kib")) > 0
    assert printed(host, "host-data-source-record", "data-source=running_vcpus") == ""
    assert printed(host, "host-data-source-forget", "data-source=running_vcpus") == ""
    sr = printed(host, "sr-list", "type=file", "--minimal").strip()
    assert "io_throughput_total" in names(printed(host, "sr-data-source-list", f"uuid={sr}"))
    assert float(printed(host, "sr-data-source-query", f"uuid={sr}", "data-source=io_throughput_total")) > 0
    assert printed(host, "sr-data-source-record", f"uuid={sr}", "data-source=io_throughput_total") == ""


def test_history_outlives_the_daemon(tmp_path: Path) -> None:
    with in_process(tmp_path) as host:
        metrics = Metrics(host.daemon.stack)
        for _ in range(5):
            tick(host, metrics)
        archive = host.daemon.stack.archives.live()[0][1]
        end = archive.steps_done * 5
    with in_process(tmp_path) as host:
        said = subprocess.run(
            ["curl", "-sk", "-u", f"root:{PASSWORD}", f"{host.url}/rrd_updates?start={end - 21}&host=true"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    values = {row.findtext("t"): float(row.findtext("v") or "") for row in ET.fromstring(said).findall("data/row")}
    assert not math.isnan(values[str(end)])
