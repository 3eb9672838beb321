"""What is on a medium that is no repository here yet: `SR.probe` and `SR.probe_ext`.

A client asks with what it knows. Where that is too little the driver fails with the number of what is missing, and with
a menu that the client can choose from: SR_BACKEND_FAILURE_<number> [status, text, menu].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.host.storage.protocol import ProbedRepository
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage.device_secrets import require_secrets, with_secrets
from domzero.toolstack.storage.repositories import asking, driver_for

NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may hold (XML 1.0, section 2.2)."""


@implements("SR.probe")
async def probe(
    stack: Stack, context: Context, host: Ref, device_config: dict[str, str], type: str, sm_config: dict[str, str]
) -> str:
    """The repositories found on a medium, as XML; see `as_xml`.

    Raises SR_UNKNOWN_DRIVER, SR_OPERATION_NOT_SUPPORTED for a driver that cannot look, SR_BACKEND_FAILURE_*.
    """
    return as_xml(await _found(stack, host, device_config, type, sm_config))


@implements("SR.probe_ext")
async def probe_ext(
    stack: Stack, context: Context, host: Ref, device_config: dict[str, str], type: str, sm_config: dict[str, str]
) -> tuple[dict[str, Any], ...]:
    """The same as records of the class probe_result, one for each repository; raises the same.

    A medium without any gives one record that has no repository: a new one can be made with this configuration.
    """
    found = await _found(stack, host, device_config, type, sm_config)
    if not found:
        return (_result(device_config, None),)
    return tuple(_result(device_config, repository) for repository in found)


async def _found(
    stack: Stack, host: Ref, device_config: Mapping[str, str], type: str, sm_config: Mapping[str, str]
) -> list[ProbedRepository]:
    driver = driver_for(stack, type.lower())
    stack.database.row("host", host)
    if "SR_PROBE" not in driver.info().capabilities:
        raise ApiError("SR_OPERATION_NOT_SUPPORTED", NULL_REF)
    require_secrets(stack.database, device_config)
    return await asking(driver.probe(with_secrets(stack.database, device_config), sm_config))


def as_xml(found: list[ProbedRepository]) -> str:
    """`SRlist`, with an `SR` for each repository: its `UUID`, `Devlist` (with commas), and `size` where it is known."""
    root = ET.Element("SRlist")
    for repository in found:
        entry = ET.SubElement(root, "SR")
        ET.SubElement(entry, "UUID").text = NOT_XML.sub("", repository.uuid)
        if repository.devices:
            ET.SubElement(entry, "Devlist").text = NOT_XML.sub("", ",".join(repository.devices))
        if repository.size:
            ET.SubElement(entry, "size").text = str(repository.size)
    ET.indent(root, "\t")
    return f'<?xml version="1.0"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _result(device_config: Mapping[str, str], repository: ProbedRepository | None) -> dict[str, Any]:
    return {
        "configuration": dict(device_config),
        "complete": True,
        "sr": None if repository is None else _statistics(repository),
        "extra_info": {"devices": ",".join(repository.devices)} if repository and repository.devices else {},
    }


def _statistics(repository: ProbedRepository) -> dict[str, Any]:
    return {
        "uuid": repository.uuid,
        "name_label": "",
        "name_description": "",
        "free_space": repository.free,
        "total_space": repository.size,
        "clustered": False,
        "health": "healthy",
    }
