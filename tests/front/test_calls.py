"""Calls through every door, with the standard library's client and by hand."""

from __future__ import annotations

import asyncio
import json
import xmlrpc.client

import pytest

from domzero.front.limits import Limits
from tests.front.conftest import Serve
from tests.front.toy import Doors, ask, http_request, read_response, request, until, value_of
from tests.sampling import each

ALL_DOORS = pytest.mark.parametrize("door", ["https", "http", "unix"])


@ALL_DOORS
async def test_the_standard_client_is_answered(doors: Doors, door: str) -> None:
    answer = await doors.proxy_call(door, "toy.echo", "grüße <&> 漢字")
    assert answer == {"Status": "Success", "Value": "grüße <&> 漢字"}
    assert (await doors.proxy_call(door, "toy.add", 1, "2"))["Value"] == "3"


@ALL_DOORS
async def test_where_a_call_comes_from(doors: Doors, door: str) -> None:
    answer = await doors.proxy_call(door, "toy.who")
    assert answer["Value"] == ("local" if door == "unix" else "127.0.0.1")


async def test_errors_are_a_status_not_a_fault(doors: Doors) -> None:
    answer = await doors.proxy_call("http", "toy.nothing")
    assert answer == {"Status": "Failure", "ErrorDescription": ["MESSAGE_METHOD_UNKNOWN", "toy.nothing"]}


@pytest.mark.parametrize("method", ["toy.crash", "toy.wrong"])
async def test_a_defect_becomes_internal_error(doors: Doors, method: str, caplog: pytest.LogCaptureFixture) -> None:
    answer = await doors.proxy_call("http", method)
    assert answer["ErrorDescription"][0] == "INTERNAL_ERROR"
    assert method in caplog.text


@pytest.mark.parametrize("path", ["/", "/RPC2", "/xmlrpc", "/RPC2?tracker=1"])
async def test_the_head_of_an_answer(doors: Doors, path: str) -> None:
    reader, writer = await doors.plain()
    writer.write(request("toy.echo", "x", path=path))
    status, headers, body = await read_response(reader)
    assert status == 200
    assert value_of(body) == "x"
    assert headers == {
        "connection": "keep-alive",
        "cache-control": "no-cache, no-store",
        "access-control-allow-origin": "*",
        "access-control-allow-headers": "x-requested-with, content-type",
        "content-type": "text/xml",
        "content-length": str(len(body)),
    }
    writer.close()


@pytest.mark.parametrize(
    ("version", "header", "kept"),
    [
        ("1.1", "", True),
        ("1.1", "Connection: close\r\n", False),
        ("1.0", "", False),
        ("1.0", "Connection: keep-alive\r\n", True),
    ],
)
async def test_keep_alive(doors: Doors, version: str, header: str, kept: bool) -> None:
    reader, writer = await doors.plain()
    writer.write(request("toy.echo", "x", headers=header, version=version))
    _, headers, _ = await read_response(reader)
    assert headers["connection"] == ("keep-alive" if kept else "close")
    if kept:
        assert await ask((reader, writer), "toy.echo", "again") == "again"
    else:
        assert await reader.read() == b""
    writer.close()


async def test_pipelined_calls_are_answered_in_order(doors: Doors) -> None:
    reader, writer = await doors.plain()
    doors.toy.release.set()
    calls = [("toy.wait",) if n % 10 == 3 else ("toy.echo", str(n)) for n in range(100)]
    writer.write(b"".join(request(*call) for call in calls))
    for call in calls:
        _, _, body = await read_response(reader)
        assert value_of(body) == (call[1] if len(call) == 2 else "waited")
    writer.close()


async def test_a_request_may_come_byte_by_byte(doors: Doors) -> None:
    reader, writer = await doors.plain()
    for byte in request("toy.echo", "slowly") + request("toy.echo", "twice"):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    assert value_of((await read_response(reader))[2]) == "slowly"
    assert value_of((await read_response(reader))[2]) == "twice"
    writer.close()


@pytest.mark.parametrize("door", each(3, ["https", "http", "unix"]))
async def test_a_large_answer_arrives_whole(doors: Doors, door: str) -> None:
    answer = await doors.proxy_call(door, "toy.big", "20000000")
    assert len(answer["Value"]) == 20_000_000


@ALL_DOORS
async def test_a_large_request_arrives_whole(doors: Doors, door: str) -> None:
    text = "ä" * 1_500_000
    assert (await doors.proxy_call(door, "toy.echo", text))["Value"] == text


async def test_a_waiting_call_blocks_nobody_else(doors: Doors) -> None:
    reader, writer = await doors.plain()
    writer.write(request("toy.wait") + request("toy.echo", "after"))
    await doors.toy.waiting.wait()
    assert (await doors.proxy_call("http", "toy.echo", "meanwhile"))["Value"] == "meanwhile"
    doors.toy.release.set()
    assert value_of((await read_response(reader))[2]) == "waited"
    assert value_of((await read_response(reader))[2]) == "after"
    writer.close()


QUICK = Limits(linger=0.05, sweep=0.01)


async def test_a_call_that_only_waits_ends_with_its_client(serve: Serve) -> None:
    doors = await serve(QUICK)
    _, writer = await doors.plain()
    writer.write(request("toy.wait"))
    await doors.toy.waiting.wait()
    writer.transport.abort()
    await asyncio.wait_for(doors.toy.cancelled.wait(), 20)


async def test_the_dispatchers_own_task_outlives_its_client(serve: Serve) -> None:
    doors = await serve(QUICK)
    _, writer = await doors.plain()
    writer.write(request("toy.work"))
    await doors.toy.waiting.wait()
    writer.transport.abort()
    await until(lambda: not doors.server.connections)
    doors.toy.release.set()
    await until(lambda: doors.toy.finished)
    assert not doors.toy.cancelled.is_set()


async def json_call(doors: Doors, body: object) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await doors.plain()
    writer.write(http_request("POST", "/jsonrpc", json.dumps(body).encode()))
    response = await read_response(reader)
    writer.close()
    return response


async def test_json_rpc_2(doors: Doors) -> None:
    call = {"jsonrpc": "2.0", "method": "toy.add", "params": [2**53, 1], "id": 7}
    status, headers, body = await json_call(doors, call)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {"jsonrpc": "2.0", "result": 2**53 + 1, "id": 7}
    call["method"] = "toy.nothing"
    _, _, body = await json_call(doors, call)
    error = {"code": 1, "message": "MESSAGE_METHOD_UNKNOWN", "data": ["toy.nothing"]}
    assert json.loads(body) == {"jsonrpc": "2.0", "error": error, "id": 7}


async def test_json_rpc_1(doors: Doors) -> None:
    _, _, body = await json_call(doors, {"method": "toy.echo", "params": ["x"], "id": "a"})
    assert json.loads(body) == {"result": "x", "error": None, "id": "a"}
    _, _, body = await json_call(doors, {"method": "toy.nothing", "params": [], "id": "a"})
    assert json.loads(body) == {"result": None, "error": ["MESSAGE_METHOD_UNKNOWN", "toy.nothing"], "id": "a"}


async def test_list_methods_is_bare(doors: Doors) -> None:
    _, _, body = await json_call(doors, {"jsonrpc": "2.0", "method": "system.listMethods", "params": [], "id": 1})
    assert json.loads(body)["result"] == ["toy.echo", "toy.add"]
    assert await doors.proxy_call("http", "system.listMethods") == ["toy.echo", "toy.add"]


async def test_an_event_batch(doors: Doors) -> None:
    batch = (await doors.proxy_call("http", "toy.events"))["Value"]
    assert batch["valid_ref_counts"] == {"box": 1}
    assert batch["events"][0]["id"] == "1"
    assert isinstance(batch["events"][0]["timestamp"], xmlrpc.client.DateTime)
    assert batch["events"][0]["snapshot"]["size"] == str(2**40 + 1)
    assert "snapshot" not in batch["events"][1]
    _, _, body = await json_call(doors, {"jsonrpc": "2.0", "method": "toy.events", "params": [], "id": 1})
    events = json.loads(body)["result"]["events"]
    assert events[0]["snapshot"]["size"] == 2**40 + 1
    assert "snapshot" not in events[1]


async def test_preflight(doors: Doors) -> None:
    reader, writer = await doors.plain()
    writer.write(b"OPTIONS /jsonrpc HTTP/1.1\r\nOrigin: http://x\r\n\r\n")
    status, headers, _ = await read_response(reader)
    assert status == 200
    assert headers["access-control-allow-origin"] == "*"
    assert "post" in headers["access-control-allow-methods"]
    assert await ask((reader, writer), "toy.echo", "next") == "next"
    writer.close()
