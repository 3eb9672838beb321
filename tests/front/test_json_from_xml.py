"""`POST /json`: calls in XML-RPC, answers in JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.front.toy import Doors, http_request, read_response, request


async def answer(doors: Doors, message: bytes) -> tuple[int, str, Any]:
    """Status, content type, and what the body says."""
    reader, writer = await doors.plain()
    writer.write(message)
    status, headers, body = await read_response(reader)
    writer.close()
    return status, headers.get("content-type", ""), json.loads(body) if status == 200 else body


@pytest.mark.parametrize(
    ("method", "params", "said"),
    [
        ("toy.echo", ("grüße <&> 漢字",), {"Status": "Success", "Value": "grüße <&> 漢字"}),
        ("toy.add", (2**31 - 1, 1), {"Status": "Success", "Value": 2**31}),
        ("toy.nothing", (), {"Status": "Failure", "ErrorDescription": ["MESSAGE_METHOD_UNKNOWN", "toy.nothing"]}),
        ("system.listMethods", (), ["toy.echo", "toy.add"]),
    ],
)
async def test_the_response_is_xml_rpcs_in_json(
    doors: Doors, method: str, params: tuple[object, ...], said: object
) -> None:
    assert await answer(doors, request(method, *params, path="/json")) == (200, "application/json", said)


async def test_events_leave_out_what_is_absent(doors: Doors) -> None:
    _, _, said = await answer(doors, request("toy.events", path="/json"))
    assert said["Status"] == "Success"
    assert said["Value"]["events"][0]["snapshot"]["size"] == 2**40 + 1
    assert "snapshot" not in said["Value"]["events"][1]


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"<methodCall>", b'{"jsonrpc":"2.0","method":"toy.echo","params":["x"],"id":1}']
)
async def test_what_is_no_xml_rpc_call(doors: Doors, body: bytes) -> None:
    status, kind, _ = await answer(doors, http_request("POST", "/json", body))
    assert (status, kind.partition(";")[0]) == (500, "text/html")


async def test_preflight_and_other_methods(doors: Doors) -> None:
    for method, expected in (("OPTIONS", 200), ("GET", 405)):
        reader, writer = await doors.plain()
        writer.write(f"{method} /json HTTP/1.1\r\nOrigin: http://x\r\n\r\n".encode())
        status, headers, _ = await read_response(reader)
        assert status == expected
        if method == "OPTIONS":
            assert headers["access-control-allow-origin"] == "*"
        writer.close()
