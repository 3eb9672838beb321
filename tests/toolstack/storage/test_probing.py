"""SR.probe and SR.probe_ext: what is found, menus, and drivers that cannot look."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from domzero.datamodel.graph import GRAPH
from domzero.host.storage import numbers
from domzero.host.storage.protocol import DriverInfo, ProbedRepository, StorageError
from domzero.host.storage.sim import SimStorage
from domzero.toolstack.storage.probing import as_xml
from domzero.wire.xmlrpc import XmlEncoder
from tests.toolstack.devices.test_vdi import default_sr
from tests.toolstack.vm.world import World

MENU = "<Devlist><BlockDevice/></Devlist>"
UUIDS = ("d5c1f5fb-7a6a-4a35-8a0e-6f1c3a9f1f02", "8e1f5b0a-40c3-4a55-9d39-0d5d0d2b9a11")


class Probing(SimStorage):
    """Storage that needs to be told a device."""

    def info(self) -> DriverInfo:
        plain = super().info()
        return dataclasses.replace(plain, capabilities=(*plain.capabilities, "SR_PROBE"))

    async def probe(self, device_config: Mapping[str, str], sm_config: Mapping[str, str]) -> list[ProbedRepository]:
        device = device_config.get("device")
        if device is None:
            raise StorageError(numbers.LOCATION_MISSING, "which device?", MENU)
        if device == "/dev/empty":
            return []
        return [ProbedRepository(UUIDS[0], 1000, 400, (device, "/dev/b")), ProbedRepository(UUIDS[1])]


def use_probing(host: World) -> None:
    probing = Probing(host.clock, host.stack.settings.state_dir / "storage")
    host.stack.storage = {**host.stack.storage, "file": probing}


async def test_what_is_found(host: World) -> None:
    use_probing(host)
    text = await host.call("SR.probe", host.stack.host, {"device": "/dev/a"}, "FILE", {})
    found = [[each.findtext(name) for name in ("UUID", "Devlist", "size")] for each in ET.fromstring(text)]
    assert found == [[UUIDS[0], "/dev/a,/dev/b", "1000"], [UUIDS[1], None, None]]
    records = await host.call("SR.probe_ext", host.stack.host, {"device": "/dev/a"}, "file", {})
    assert [each["sr"]["uuid"] for each in records] == list(UUIDS)
    assert (records[0]["sr"]["total_space"], records[0]["sr"]["free_space"]) == (1000, 400)
    assert {each["complete"] for each in records} == {True}
    assert records[0]["extra_info"] == {"devices": "/dev/a,/dev/b"}
    result = GRAPH.methods["SR.probe_ext"].message.result
    assert UUIDS[1] in XmlEncoder(GRAPH).encode_text(result, records)


async def test_an_empty_medium(host: World) -> None:
    use_probing(host)
    text = await host.call("SR.probe", host.stack.host, {"device": "/dev/empty"}, "file", {})
    assert (ET.fromstring(text).tag, len(ET.fromstring(text))) == ("SRlist", 0)
    (record,) = await host.call("SR.probe_ext", host.stack.host, {"device": "/dev/empty"}, "file", {})
    assert (record["sr"], record["configuration"]) == (None, {"device": "/dev/empty"})
    XmlEncoder(GRAPH).encode_text(GRAPH.methods["SR.probe_ext"].message.result, (record,))


async def test_a_menu_where_the_question_says_too_little(host: World) -> None:
    use_probing(host)
    for method in ("SR.probe", "SR.probe_ext"):
        error = await host.fails(method, host.stack.host, {}, "file", {})
        assert error == (f"SR_BACKEND_FAILURE_{numbers.LOCATION_MISSING}", "", "which device?", MENU)


async def test_who_cannot_look_or_does_not_exist(host: World) -> None:
    params: list[Any] = [{}, "tape", {}]
    assert await host.fails("SR.probe", host.stack.host, *params) == ("SR_UNKNOWN_DRIVER", "tape")
    assert (await host.fails("SR.probe", "OpaqueRef:none", {}, "file", {}))[0] == "HANDLE_INVALID"
    without = host.stack.storage["iso"].info()
    assert "SR_PROBE" not in without.capabilities
    assert (await host.fails("SR.probe", host.stack.host, {}, "iso", {}))[0] == "SR_OPERATION_NOT_SUPPORTED"


def test_no_text_breaks_the_document() -> None:
    hostile = ProbedRepository("</UUID>\x00&", devices=("/dev/\ud800<", "]]>"))
    (entry,) = ET.fromstring(as_xml([hostile]))
    assert (entry.findtext("UUID"), entry.findtext("Devlist")) == ("</UUID>&", "/dev/<,]]>")


async def test_where_hosts_can_watch_each_other(host: World) -> None:
    sr = default_sr(host)
    assert await host.fails("SR.assert_can_host_ha_statefile", sr) == ("SR_OPERATION_NOT_SUPPORTED", sr)
    assert await host.fails("SR.assert_supports_database_replication", sr) == ("SR_OPERATION_NOT_SUPPORTED", sr)
