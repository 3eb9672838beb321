"""The XML that probes answer."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from domzero.host.storage import menus
from domzero.host.storage.menus import BlockDevice, IscsiTarget, IscsiUnit, NfsExport
from domzero.host.storage.protocol import ProbedRepository


def rows(document: str) -> tuple[str, list[tuple[str, dict[str, str]]]]:
    root = ET.fromstring(document)
    return root.tag, [(item.tag, {field.tag: field.text or "" for field in item}) for item in root]


@pytest.mark.parametrize(
    ("document", "root", "item", "fields"),
    [
        (
            menus.device_menu([BlockDevice("/dev/sdb", 1 << 30, serial="7")]),
            "Devlist",
            "BlockDevice",
            {"path": "/dev/sdb", "size": "1073741824", "serial": "7"},
        ),
        (
            menus.target_menu([IscsiTarget("10.0.0.1", 3260, "iqn.2001-04.com.example:a")]),
            "iscsi-target-iqns",
            "TGT",
            {"Index": "0", "IPAddress": "10.0.0.1", "Port": "3260", "TargetIQN": "iqn.2001-04.com.example:a"},
        ),
        (
            menus.unit_menu([IscsiUnit(1, "3600", 4096, "IET", "beaf11")]),
            "iscsi-target",
            "LUN",
            {"vendor": "IET", "serial": "beaf11", "LUNid": "1", "size": "4096", "SCSIid": "3600"},
        ),
        (
            menus.export_menu("filer", [NfsExport("/srv", "*")]),
            "nfs-exports",
            "Export",
            {"Target": "filer", "Path": "/srv", "Accesslist": "*"},
        ),
        (
            menus.repository_list([ProbedRepository("u", devices=("/dev/sdb",))]),
            "SRlist",
            "SR",
            {"UUID": "u", "Devlist": "/dev/sdb"},
        ),
    ],
    ids=["devices", "targets", "units", "exports", "repositories"],
)
def test_a_menu_has_the_names_that_clients_look_for(
    document: str, root: str, item: str, fields: dict[str, str]
) -> None:
    assert rows(document) == (root, [(item, fields)])


def test_nothing_found_is_an_empty_document() -> None:
    assert rows(menus.device_menu([])) == ("Devlist", [])


def test_what_a_server_says_cannot_break_the_document() -> None:
    said = menus.export_menu("filer", [NfsExport("/a</Path>&\0\x1b\ud800", "<*>")])
    assert rows(said)[1][0][1]["Path"] == "/a</Path>&"
