"""Reports of LVM's tools, as they are and as they could be."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from domzero.host.hypervisor.spec import Extent
from domzero.host.storage.lvm import report as lvm_report
from domzero.host.storage.lvm.mapping import has_device_mapper, place_of
from domzero.host.storage.lvm.report import Piece, Volume
from domzero.host.storage.lvm.tool import meaning
from domzero.host.storage.protocol import StorageError

MIB = 1 << 20
EXTENT = 4 * MIB


def segment(name: str, start: int, ranges: str, **more: str) -> dict[str, str]:
    row = {"lv_name": name, "lv_size": str(2 * EXTENT), "lv_tags": "", "lv_active": "", "lv_device_open": "unknown"}
    return {**row, "segtype": "linear", "seg_start": str(start), "seg_size": "1", "seg_pe_ranges": ranges, **more}


def report(*rows: dict[str, str]) -> bytes:
    return orjson.dumps({"report": [{"seg": rows}]})


def test_segments_of_a_volume_come_together_in_order() -> None:
    said = report(
        segment("b", EXTENT, "/dev/sda:7-7"),
        segment("a", 0, "/dev/sda:1-2", lv_tags="x,domzero_new,a=/&#!:b", lv_active="active", lv_device_open="open"),
        segment("b", 0, "/dev/sda:6-6"),
        segment("c", 0, "/dev/sda:8-8"),
        segment("c", EXTENT, "/dev/sdb:9-9"),
        segment("d", 0, "/dev/sda:1-2 /dev/sdb:1-2"),
        segment("e", 0, "thin:0-1", segtype="thin"),
        segment("f", 0, "unknown"),
    )
    a, b, c, d, e, f = lvm_report.volumes(said)
    assert a == Volume(
        "a", 8 * MIB, frozenset({"x", "domzero_new", "a=/&#!:b"}), (Piece("/dev/sda", 1, 2),), True, True
    )
    assert b.pieces == (Piece("/dev/sda", 6, 7),)
    assert c.pieces == (Piece("/dev/sda", 8, 8), Piece("/dev/sdb", 9, 9))
    assert d.pieces is e.pieces is f.pieces is None
    starts = {"/dev/sda": MIB}
    assert place_of(b, starts, EXTENT) == Extent(Path("/dev/sda"), MIB + 6 * EXTENT, 2 * EXTENT)
    for unreachable in (c, d, e, f, Volume("g", EXTENT, frozenset(), (Piece("/dev/gone", 1, 1),))):
        with pytest.raises(StorageError) as caught:
            place_of(unreachable, starts, EXTENT)
        assert caught.value.number == 46
    with pytest.raises(StorageError) as caught:
        place_of(Volume("h", EXTENT, frozenset(), (Piece("/dev/sda", 1, 2),)), starts, EXTENT)
    assert caught.value.number == 181


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{",
        b"[]",
        b'{"report": 3}',
        b'{"report": [3]}',
        b'{"report": [{"seg": [3]}]}',
        b'{"report": [{"seg": [{"lv_name": "a"}]}]}',
        report(segment("a", 0, "/dev/sda:1-2", lv_size="-4")),
        report(segment("a", 0, "/dev/sda:1-2", lv_size="4.0m")),
        report({**segment("a", 0, ""), "lv_name": None}),  # type: ignore[dict-item]  # what must not be
    ],
)
def test_what_is_no_report_is_an_error(said: bytes) -> None:
    with pytest.raises(StorageError) as caught:
        lvm_report.volumes(said)
    assert caught.value.number == 181


def test_a_report_without_volumes_has_none() -> None:
    assert lvm_report.volumes(b'{"report": [{"seg": []}]}') == []
    assert lvm_report.groups(b'{"report": []}') == []
    rows = b'{"report": [{"pv": [{"pv_name": "[unknown]", "pe_start": "0", "vg_name": "x"}]}]}'
    assert lvm_report.devices(rows) == []


@pytest.mark.parametrize(
    ("verb", "said", "number"),
    [
        ("lvcreate", 'Volume group "x" has insufficient free space (86 extents): 200 required.', 44),
        ("lvcreate", "Insufficient suitable contiguous allocatable extents for logical volume x: 4 more required", 44),
        ("lvcreate", 'Logical Volume "LV-1" already exists in volume group "x"', 43),
        ("vgcreate", "A volume group called x already exists.", 42),
        ("vgcreate", "Can't open /dev/sda exclusively.  Mounted filesystem?", 16),
        ("lvremove", "Logical volume x/LV-1 in use.", 24),
        ("lvremove", "Logical volume x/LV-1 is used by another device.", 24),
        ("lvremove", 'Failed to find logical volume "x/LV-1"', 144),
        ("lvs", 'Volume group "x" not found', 47),
        ("lvcreate", "Cannot change VG x while PVs are missing.", 47),
        ("lvs", "Error reading device /dev/sda at 0 length 4096.", 200),
        ("lvs", "lvm did not finish within 60.0 seconds", 200),
        ("lvextend", "something else", 59),
        ("vgcreate", "something else", 77),
        ("lvs", "something else", 180),
        ("lvremove", "WARNING: Activation disabled. It is not in use.\nsomething else", 80),
    ],
)
def test_what_lvm_says_has_a_number(verb: str, said: str, number: int) -> None:
    assert meaning(verb, said).number == number


def test_device_mapper_is_found_where_it_is(tmp_path: Path) -> None:
    misc, control = tmp_path / "misc", tmp_path / "control"
    misc.write_text("234 btrfs-control\n 58 device-mapper-not\n")
    assert not has_device_mapper(misc, control)
    control.write_text("")
    assert has_device_mapper(misc, control)
    control.unlink()
    misc.write_text(" 58 vsock\n236 device-mapper\n")
    assert has_device_mapper(misc, control)
    assert not has_device_mapper(tmp_path / "none", control)
