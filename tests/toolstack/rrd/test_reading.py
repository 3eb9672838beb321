"""Dumps that are read: our own, rrdtool's, and what is none."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domzero.toolstack.rrd.archive import Archive
from domzero.toolstack.rrd.columns import AVERAGES, EXTREMES, RESOLUTIONS
from domzero.toolstack.rrd.document import rrd_xml
from domzero.toolstack.rrd.reading import DumpError, read_dump
from domzero.toolstack.rrd.sources import Kind
from tests.toolstack.rrd.test_documents import BEGIN, LAYOUT, filled


def written(archive: Archive) -> bytes:
    return "".join(rrd_xml(archive)).encode()


def rows(archive: Archive, level: int, function: str, count: int) -> list[list[float]]:
    last = archive.steps_done // RESOLUTIONS[level].steps
    return [list(archive.rows(at, level, function, last - count + 1, last)) for at in range(len(archive.sources))]


def same(one: Archive, other: Archive, functions: tuple[str, ...], levels: range) -> None:
    for level in levels:
        for function in functions if level else AVERAGES:
            count = RESOLUTIONS[level].rows
            for mine, theirs in zip(
                rows(one, level, function, count), rows(other, level, function, count), strict=True
            ):
                assert mine == pytest.approx(theirs, nan_ok=True), (level, function)


@pytest.mark.parametrize("functions", [AVERAGES, EXTREMES])
def test_what_is_written_is_read(functions: tuple[str, ...]) -> None:
    archive = filled(2000, functions)
    back = read_dump(written(archive))
    assert (back.functions, back.last, back.steps_done) == (functions, math.floor(archive.last), archive.steps_done)
    assert [(it.name, it.kind) for it in back.sources] == [(it.name, it.kind) for it in LAYOUT]
    same(back, archive, functions, range(4))
    # It goes on: what is measured from now on comes to the same rows, but for the moment in between.
    for number in range(2000, 2000 + 800):
        for one in (archive, back):
            one.add(BEGIN + 5 * number + 0.25, LAYOUT, (1000.0 + number, 50.0 * number))
    for level, count in ((0, 120), (1, 60)):
        for mine, theirs in zip(
            rows(back, level, "AVERAGE", count), rows(archive, level, "AVERAGE", count), strict=True
        ):
            assert mine == pytest.approx(theirs)
    # An hour that was under way knows what its minutes do.
    for mine, theirs in zip(rows(back, 2, "AVERAGE", 1), rows(archive, 2, "AVERAGE", 1), strict=True):
        assert mine == pytest.approx(theirs, rel=0.01)


DUMP = """<?xml version="1.0"?>
<rrd>
  <version>0003</version> <step>5</step> <lastupdate>{last}</lastupdate>
  <ds><name> cpu0 </name><type>{kind}</type><minimal_heartbeat>300</minimal_heartbeat><min>0.0</min><max>NaN</max>
    <last_ds>5</last_ds><value>0</value><unknown_sec>0</unknown_sec></ds>
  <rra><cf>{function}</cf><pdp_per_row>{steps}</pdp_per_row><params><xff>0.5</xff></params>
    <cdp_prep><ds><primary_value>0</primary_value><value>NaN</value></ds></cdp_prep>
    <database><!-- 2023 --> {rows}</database></rra>
</rrd>
"""


def dump(
    *values: str, last: str = str(BEGIN), kind: str = "GAUGE", function: str = "AVERAGE", steps: str = "12"
) -> bytes:
    cells = "".join(f"<row><v> {value} </v></row>" for value in values)
    return DUMP.format(last=last, kind=kind, function=function, steps=steps, rows=cells).encode()


def test_fewer_rows_are_the_newest_ones() -> None:
    found = read_dump(dump("1.5", "NaN", "Infinity", "4.0e0"))
    (values,) = rows(found, 1, "AVERAGE", 6)
    assert values == pytest.approx([math.nan, math.nan, 1.5, math.nan, math.nan, 4.0], nan_ok=True)
    assert (found.sources[0].minimum, found.sources[0].maximum) == (0.0, math.inf)


def test_more_rows_than_are_kept() -> None:
    (values,) = rows(read_dump(dump(*map(str, range(200)))), 1, "AVERAGE", 120)
    assert values == list(map(float, range(80, 200)))


@pytest.mark.parametrize(
    ("steps", "function"), [("7", "AVERAGE"), ("0", "AVERAGE"), ("x", "AVERAGE"), ("12", "LAST"), ("1", "MAX")]
)
def test_rows_of_another_kind_are_passed_over(steps: str, function: str) -> None:
    found = read_dump(dump("1", "2", steps=steps, function=function))
    assert all(math.isnan(value) for level in range(4) for value in rows(found, level, "AVERAGE", 5)[0])


@pytest.mark.parametrize(("kind", "taken"), [("COUNTER", Kind.DERIVE), ("DERIVE", Kind.DERIVE), ("odd", Kind.GAUGE)])
def test_types(kind: str, taken: Kind) -> None:
    assert read_dump(dump("1", kind=kind)).sources[0].kind is taken


@pytest.mark.parametrize(
    "document",
    [
        b"", b"<rrd/>", b"<html></html>", b"<rrd><step>5</step>", dump("x"), dump("1") * 2, dump("1", last="-1"),
        dump("1", last="1e12"), dump("1", last="NaN"), dump("1").replace(b"<step>5", b"<step>60"),
        dump("1").replace(b" cpu0 ", b""),
        dump("1").replace(b"</ds>\n  <rra>", b"</ds><ds><name>cpu0</name></ds><rra>"),
        dump("1").replace(b"</ds>\n  <rra>", b"</ds><ds><name>two</name></ds><rra>"),
        dump("1").replace(b"</rra>", b"</rra><ds><name>late</name></ds>"),
        dump("1").replace(b"<cf>", b"<cf>" + b"x" * 300),
        dump("1").replace(b"<v>", b"<v><w>").replace(b"</v>", b"</w></v>"),
        dump("1").replace(b"<rrd>", b'<!DOCTYPE rrd [<!ENTITY a "b">]><rrd>'),
        dump("1").replace(b'version="1.0"', b'version="1.0" encoding="idna"'),
        b"<rrd><a><b><row><v>1</v></row></b></a></rrd>", b"<rrd>" + b"<rra/>" * 65 + b"</rrd>",
        b"<rrd>" + b"".join(b"<ds><name>%d</name></ds>" % number for number in range(1025)) + b"</rrd>",
    ],
)  # fmt: skip
def test_what_is_no_dump(document: bytes) -> None:
    with pytest.raises(DumpError):
        read_dump(document)


WHOLE = dump("1", "2")
WORDS = st.sampled_from(
    [b"<rrd>", b"</rrd>", b"<ds>", b"</ds>", b"<rra>", b"</rra>", b"<row>", b"</row>", b"<v>", b"</v>", b"<step>",
     b"1e308", b"<database>", b"</database>", b"<name>", b"</name>", b"NaN", b"&lt;", b"\xff", b"-", b"<lastupdate>"],
)  # fmt: skip


@settings(deadline=None)
@given(
    st.integers(0, len(WHOLE)),
    st.integers(0, 30),
    st.one_of(st.binary(max_size=8), st.lists(WORDS, max_size=4).map(b"".join)),
)
def test_a_damaged_dump_is_refused_or_makes_an_archive(at: int, lost: int, put: bytes) -> None:
    try:
        found = read_dump(WHOLE[:at] + put + WHOLE[at + lost :])
    except DumpError:
        return
    found.add(found.last + 5, LAYOUT, (1, 2))
    assert read_dump(written(found)).sources


@pytest.mark.skipif(shutil.which("rrdtool") is None, reason="rrdtool is not installed")
def test_what_rrdtool_writes_is_read(tmp_path: Path) -> None:
    archive = filled(200, late=2)
    ours, file = tmp_path / "dump.xml", tmp_path / "file.rrd"
    ours.write_bytes(written(archive))
    subprocess.run(["rrdtool", "restore", ours, file], check=True)
    theirs = subprocess.run(["rrdtool", "dump", "--header", "xsd", file], check=True, capture_output=True).stdout
    same(read_dump(theirs), archive, EXTREMES, range(4))
