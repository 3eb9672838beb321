"""Machines from a web address."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from domzero.idl.types import NULL_REF
from tests.host.test_download import server
from tests.toolstack.transfer.test_machines_import import CONTENT, nothing_left
from tests.toolstack.transfer.test_machines_round_trip import content, disks_of
from tests.toolstack.vm.world import World
from tests.xva_writer import machine, xva


async def offered(path: str, writer: asyncio.StreamWriter) -> None:
    body = xva(machine("web", {"0": CONTENT}))
    status, body = ("200 OK", body if path == "/whole" else body[:-40_000]) if path != "/no" else ("404 Not Found", b"")
    writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status.encode(), len(body)))
    writer.write(body)
    await writer.drain()


def incoming(host: World) -> list[Path]:
    return list((host.stack.settings.state_dir / "incoming").iterdir())


async def test_a_machine_is_fetched(host: World) -> None:
    async with server(offered) as address:
        (vm,) = await host.call("VM.import", f"{address}/whole", NULL_REF, False, False)
    assert (await content(host, disks_of(host, vm)[0])).startswith(CONTENT)
    assert incoming(host) == []


@pytest.mark.parametrize(("path", "code"), [("/cut", "IMPORT_ERROR_PREMATURE_EOF"), ("/no", "IMPORT_ERROR")])
async def test_what_cannot_be_fetched_leaves_nothing(host: World, path: str, code: str) -> None:
    async with server(offered) as address, nothing_left(host):
        assert (await host.fails("VM.import", f"{address}{path}", NULL_REF, False, False))[0] == code
    assert incoming(host) == []


async def test_only_web_addresses(host: World) -> None:
    error = await host.fails("VM.import", "file:///etc/passwd", NULL_REF, False, False)
    assert error[0] == "IMPORT_ERROR"
