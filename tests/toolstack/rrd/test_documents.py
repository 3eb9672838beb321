"""What is written down, read by parts that know nothing of us: the standard library's XML and JSON, and rrdtool."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from domzero.toolstack.rrd.archive import Archive
from domzero.toolstack.rrd.columns import EXTREMES, RESOLUTIONS
from domzero.toolstack.rrd.document import json_cells, rrd_json, rrd_xml, xport_json, xport_xml
from domzero.toolstack.rrd.export import Owner, choose_level, tabulate
from domzero.toolstack.rrd.sources import Kind, Source

BEGIN = 1_700_000_000
MEMORY = Source("memory", "", "B")
READ = Source("vbd_xvda_read", "", "B/s", Kind.DERIVE)
LAYOUT = (MEMORY, READ)
ONE, TWO = Owner("vm", "11111111-0000-4000-8000-000000000000"), Owner("host", "22222222-0000-4000-8000-000000000000")


def filled(readings: int, functions: tuple[str, ...] = EXTREMES, begin: int = BEGIN, late: float = 0.25) -> Archive:
    archive = Archive(functions)
    for number in range(readings):
        archive.add(begin + 5 * number + late, LAYOUT, (1000.0 + number, 50.0 * number))
    return archive


def read_xport(text: str) -> tuple[dict[str, int], dict[str, dict[int, float]]]:
    """Meta figures, and columns as time → value; as clients of XenServer go about it."""
    root = ET.fromstring(text)
    meta = {child.tag: int(child.text or "") for child in root.iterfind("meta/*") if child.tag != "legend"}
    names = [entry.text or "" for entry in root.iterfind("meta/legend/entry")]
    columns: dict[str, dict[int, float]] = {name: {} for name in names}
    rows = root.findall("data/row")
    assert (meta["rows"], meta["columns"]) == (len(rows), len(names))
    times = [int(row.findtext("t") or "") for row in rows]
    assert not times or times == list(range(meta["end"], meta["start"] - 1, -meta["step"]))
    for time, row in zip(times, rows, strict=True):
        for name, value in zip(names, row.findall("v"), strict=True):
            columns[name][time] = float(value.text or "")
    return meta, columns


def test_an_update_of_two_owners() -> None:
    late, early = filled(60), filled(30, begin=BEGIN + 50)
    now = BEGIN + 5 * 60
    table = tabulate([(ONE, late), (TWO, early)], now, now - 60, function="AVERAGE")
    meta, columns = read_xport("".join(xport_xml(table)))
    assert (meta["step"], meta["rows"], meta["end"]) == (5, 11, BEGIN + 295)
    assert set(columns) == {f"AVERAGE:{owner}:{name}" for owner in (ONE, TWO) for name in ("memory", "vbd_xvda_read")}
    assert columns[f"AVERAGE:{ONE}:vbd_xvda_read"][BEGIN + 295] == pytest.approx(10.0)
    # The second owner was not measured any more.
    assert math.isnan(columns[f"AVERAGE:{TWO}:memory"][BEGIN + 295])
    same = json.loads("".join(xport_json(table)))
    assert {name: same["meta"][name] for name in meta} == meta
    for row in same["data"]:
        values = [float(value) for value in row["values"]]
        expected = [columns[name][row["t"]] for name in same["meta"]["legend"]]
        assert values == pytest.approx(expected, nan_ok=True)


def test_no_owner_and_no_rows() -> None:
    for owners in ([], [(ONE, filled(60))]):
        table = tabulate(owners, BEGIN + 300, BEGIN + 4000)
        assert read_xport("".join(xport_xml(table)))[0]["rows"] == 0
        assert json.loads("".join(xport_json(table)))["data"] == []


def test_every_function_from_minutes_on() -> None:
    archive = filled(200)
    now = BEGIN + 1000
    _, columns = read_xport("".join(xport_xml(tabulate([(ONE, archive)], now, now - 300, interval=60))))
    assert {name.partition(":")[0] for name in columns} == set(EXTREMES)
    time = max(columns[f"MIN:{ONE}:memory"])
    low, high = columns[f"MIN:{ONE}:memory"][time], columns[f"MAX:{ONE}:memory"][time]
    assert high - low == pytest.approx(11.0)
    assert columns[f"AVERAGE:{ONE}:memory"][time] == pytest.approx((low + high) / 2)
    plain = tabulate([(ONE, filled(200, ("AVERAGE",)))], now, now - 300, 60, "MAX")
    assert (plain.legend, plain.step) == ([], 60)


@pytest.mark.parametrize(
    ("back", "interval", "seconds"),
    [(0, 0, 5), (600, 0, 5), (601, 0, 60), (7200, 5, 60), (7201, 0, 3600), (10, 6, 60), (10, 3600, 3600),
     (604_801, 0, 86_400), (1e12, 0, 86_400), (0, 10**9, 86_400)],
)  # fmt: skip
def test_the_resolution_that_fits(back: float, interval: int, seconds: int) -> None:
    assert RESOLUTIONS[choose_level(BEGIN, BEGIN - back, interval)].seconds == seconds


def test_numbers_that_json_has_not() -> None:
    values = (math.inf, 1.5, math.nan, -math.inf, math.inf)
    assert json.loads(f"[{json_cells(values)}]") == ["Infinity", 1.5, "NaN", "-Infinity", "Infinity"]
    assert json.loads(f"[{json_cells((math.nan,))}]") == ["NaN"]
    assert json_cells(()) == ""


def test_a_whole_archive_is_the_same_in_both_forms() -> None:
    archive = filled(400)
    root = ET.fromstring("".join(rrd_xml(archive)))
    same = json.loads("".join(rrd_json(archive)))
    assert (root.findtext("version"), root.findtext("step"), root.findtext("lastupdate")) == (
        "0003", "5", str(BEGIN + 5 * 399),
    )  # fmt: skip
    assert [child.findtext("name") for child in root.findall("ds")] == [child["name"] for child in same["ds"]]
    archives = root.findall("rra")
    assert len(archives) == len(same["rra"]) == 1 + 3 * 3
    for one, other in zip(archives, same["rra"], strict=True):
        assert (one.findtext("cf"), int(one.findtext("pdp_per_row") or "")) == (other["cf"], other["pdp_per_row"])
        rows = [[cell.text for cell in row] for row in one.findall("database/row")]
        assert len(rows) == next(it.rows for it in RESOLUTIONS if it.steps == other["pdp_per_row"])
        assert [float(cell or "") for row in rows for cell in row] == pytest.approx(
            [float(cell) for row in other["database"] for cell in row], nan_ok=True
        )


@pytest.mark.skipif(shutil.which("rrdtool") is None, reason="rrdtool is not installed")
def test_rrdtool_reads_a_whole_archive_and_goes_on_with_it(tmp_path: Path) -> None:
    readings = 64
    archive = filled(readings, late=2)
    dump, file = tmp_path / "dump.xml", tmp_path / "file.rrd"
    dump.write_text("".join(rrd_xml(archive)))

    def rrdtool(*arguments: str) -> str:
        done = subprocess.run(["rrdtool", *arguments], check=True, capture_output=True, text=True)
        return done.stdout

    def fetched(function: str, step: int, count: int, end: int) -> list[list[float]]:
        said = rrdtool("fetch", str(file), function, "-r", str(step), "-s", str(end - count * step), "-e", str(end - 1))
        return [[float(word) for word in line.partition(":")[2].split()] for line in said.splitlines()[2:]][:count]

    def ours(level: int, function: str, count: int) -> list[list[float]]:
        last = archive.steps_done // RESOLUTIONS[level].steps
        columns = [archive.rows(at, level, function, last - count + 1, last) for at in (0, 1)]
        return [list(row) for row in zip(*columns, strict=True)]

    def compare() -> None:
        for level, function, count in ((0, "AVERAGE", 50), (1, "AVERAGE", 4), (1, "MIN", 4), (1, "MAX", 4)):
            step = RESOLUTIONS[level].seconds
            end = archive.steps_done // RESOLUTIONS[level].steps * step
            theirs = fetched(function, step, count, end)
            for mine, other in zip(ours(level, function, count), theirs, strict=True):
                assert mine == pytest.approx(other, nan_ok=True)

    rrdtool("restore", str(dump), str(file))
    compare()
    # rrdtool goes on where we stopped, and so do we: both come to the same rows.
    for number in range(readings, readings + 15):
        now = BEGIN + 5 * number + 2
        rrdtool("update", str(file), f"{now}:{1000 + number}:{50 * number}")
        archive.add(now, LAYOUT, (1000.0 + number, 50.0 * number))
    compare()
