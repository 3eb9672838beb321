"""Calls per second of the front, with a dispatcher that does nothing, against the bare echo of `base_echo`.

Run as `python -m bench.calls_compare`; prints a table, ratios first.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.base_echo import serve_echo

from domzero.datamodel.graph import GRAPH
from domzero.engine.calls import Answer, Origin
from domzero.front.certificates import ensure_certificate, tls_context
from domzero.front.server import Server
from domzero.host.process import run
from domzero.idl.types import STRING

REF = "OpaqueRef:00000000-0000-0000-0000-000000000000"
ANSWER = Answer(STRING, "Running")
SECONDS = 2.0


class Constant:
    """A dispatcher with one answer."""

    def call(self, method: str, params: Sequence[Any], origin: Origin) -> Answer:  # noqa: ARG002 - the front's protocol
        return ANSWER


def call_bytes() -> bytes:
    """A getter's call as the standard library's client sends it."""
    body = xmlrpc.client.dumps((REF, REF), "VM.get_power_state").encode()
    head = "POST / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nContent-Type: text/xml\r\nContent-Length: "
    return f"{head}{len(body)}\r\n\r\n".encode() + body


async def load(request: Path, connections: int, *target: str) -> dict[str, float]:
    """One measurement, by a process of its own."""
    script = str(Path(__file__).with_name("calls_load.py"))
    options = ["--request", str(request), "--connections", str(connections), "--seconds", str(SECONDS)]
    completed = await run([sys.executable, script, *options, *target])
    result: dict[str, float] = json.loads(completed.stdout)
    return result


async def main() -> None:
    """Measure each door with 1, 4 and 32 connections, front and echo in turn."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        context = tls_context(ensure_certificate(directory, ["localhost"], ["127.0.0.1"]))
        request = directory / "request"
        request.write_bytes(call_bytes())
        server = Server(Constant(), GRAPH)
        server.listen_unix(directory / "front")
        port = server.listen_https("127.0.0.1", 0, context)
        echoes, echo_port = await serve_echo(directory / "echo", context)
        print("| door | connections | front / echo | front, calls/s | median, µs | echo, calls/s |")
        print("|---|---|---|---|---|---|")
        doors = (
            ("Unix", ("--path", str(directory / "front")), ("--path", str(directory / "echo"))),
            ("TLS", ("--port", str(port)), ("--port", str(echo_port))),
        )
        for door, to_front, to_echo in doors:
            for connections in (1, 4, 32):
                front = await load(request, connections, *to_front)
                echo = await load(request, connections, *to_echo)
                ratio = front["rate"] / echo["rate"]
                rates = f"{front['rate']:.0f} | {front['median']:.0f} | {echo['rate']:.0f}"
                print(f"| {door} | {connections} | {ratio:.2f} | {rates} |")
        await server.stop(0)
        for listening in echoes:
            listening.close()


if __name__ == "__main__":
    asyncio.run(main())
