"""What the host has to say: its logs, and a bundle of them for those who look into a problem."""

from __future__ import annotations

import asyncio
import io
import tarfile
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from domzero.engine.binding import implements
from domzero.engine.clock import moment
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.host.control.protocol import ControlError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack

LOG_LIMIT = 1 << 20
"""Bytes of the latest log that `host.get_log` answers with."""

UPLOAD_TIMEOUT = 60.0


@implements("host.get_log")
async def get_log(stack: Stack, context: Context, host: Ref) -> str:
    """The latest part of domzero's own log, at most `LOG_LIMIT` bytes, from a line's start."""
    stack.database.row("host", host)
    return await _own_log(stack)


@implements("host.dmesg")
async def dmesg(stack: Stack, context: Context, host: Ref) -> str:
    """The kernel's messages."""
    stack.database.row("host", host)
    return await _kernel_log(stack, clear=False)


@implements("host.dmesg_clear")
async def dmesg_clear(stack: Stack, context: Context, host: Ref) -> str:
    """The kernel's messages, which the kernel then forgets."""
    stack.database.row("host", host)
    return await _kernel_log(stack, clear=True)


@implements("host.syslog_reconfigure")
async def syslog_reconfigure(stack: Stack, context: Context, host: Ref) -> None:
    """Send domzero's log to the server named by `host.logging["syslog_destination"]`, or stop doing so."""
    destination = stack.database.get("host", host, "logging").get("syslog_destination", "")
    try:
        await asyncio.to_thread(stack.control.send_log_to, destination)
    except ControlError as error:
        raise ApiError("INVALID_VALUE", "syslog_destination", str(error)) from error


@implements("host.get_system_status_capabilities")
def get_system_status_capabilities(stack: Stack, context: Context, host: Ref) -> str:
    """XML that lists the parts of a bug report, with the limits of their sizes and whether they tell of persons."""
    stack.database.row("host", host)
    root = ET.Element("system-status-capabilities")
    for key, personal in (("domzero-log", "maybe"), ("kernel-log", "no"), ("inventory", "maybe")):
        ET.SubElement(
            root,
            "capability",
            {
                "key": key,
                "min-size": "0",
                "max-size": str(LOG_LIMIT),
                "min-time": "0",
                "max-time": "20",
                "pii": personal,
            },
        )
    return ET.tostring(root, encoding="unicode", xml_declaration=True)


@implements("host.bugreport_upload")
async def bugreport_upload(stack: Stack, context: Context, host: Ref, url: str, options: dict[str, str]) -> None:
    """Collect a bug report and PUT it to an http or https address.

    `options["http_proxy"]` names a proxy. The report holds logs and an inventory, never passwords or keys.
    Raises INVALID_VALUE, SYSTEM_STATUS_RETRIEVAL_FAILED.
    """
    stack.database.row("host", host)
    if urlsplit(url).scheme not in ("http", "https"):
        raise ApiError("INVALID_VALUE", "url", url)
    report = await _bug_report(stack)
    try:
        await asyncio.to_thread(_upload, url, options.get("http_proxy", ""), report)
    except (OSError, ValueError, HTTPException) as error:
        raise ApiError("SYSTEM_STATUS_RETRIEVAL_FAILED", f"The report could not be sent to {url}: {error}") from error


async def _bug_report(stack: Stack) -> bytes:
    parts = {
        "domzero.log": await _own_log(stack),
        "kernel.log": await _kernel_log(stack, clear=False),
        "inventory.txt": _inventory(stack),
    }
    return await asyncio.to_thread(_packed, parts, int(stack.clock.now().timestamp()))


def _packed(parts: Mapping[str, str], when: int) -> bytes:
    """A compressed archive of texts by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in parts.items():
            data = text.encode()
            member = tarfile.TarInfo(f"bug-report/{name}")
            member.size = len(data)
            member.mtime = when
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _inventory(stack: Stack) -> str:
    database = stack.database
    lines = [f"collected {moment(stack.clock.now())}"]
    lines += [f"{key} {value}" for key, value in database.get("host", stack.host, "software_version").items()]
    for row in database.rows("VM").values():
        record = row.record
        if not record["is_a_template"]:
            lines.append(f"VM {record['uuid']} {record['power_state']} {record['name_label']}")
    for row in database.rows("SR").values():
        lines.append(f"SR {row.record['uuid']} {row.record['type']} {row.record['name_label']}")
    return "\n".join(lines) + "\n"


async def _own_log(stack: Stack) -> str:
    return await asyncio.to_thread(stack.control.log_tail, LOG_LIMIT)


async def _kernel_log(stack: Stack, *, clear: bool) -> str:
    try:
        return await stack.control.kernel_log(clear=clear)
    except ControlError as error:
        raise ApiError("INTERNAL_ERROR", str(error)) from error


def _upload(url: str, proxy: str, report: bytes) -> None:
    proxies = {"http": proxy, "https": proxy} if proxy else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked by the caller
        url, data=report, method="PUT", headers={"Content-Type": "application/gzip"}
    )
    with opener.open(request, timeout=UPLOAD_TIMEOUT):
        return
