"""How long the server itself takes for all records, without the kernel's part: `python -m bench.records_inside STATE`.

Opens a host's state as the daemon does, decodes the call, carries it out and encodes its answer until the bytes are
ready to be sent, beside `xmlrpc.client.dumps` of the same records as plain values. Prints a JSON object of lists of
seconds: `same`, `changed` (one record in a hundred has changed since the call before) and `dumps`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import xmlrpc.client
from pathlib import Path

from bench.client import request
from domzero.daemon import Serving, serving
from domzero.datamodel.graph import GRAPH
from domzero.engine.calls import LOCAL, Answer
from domzero.engine.dispatch import Dispatcher
from domzero.front.rpc import XmlEndpoint
from domzero.settings import Endpoint, Settings
from domzero.toolstack.registry import implementations
from domzero.toolstack.unimplemented import UNIMPLEMENTED


def answer(dispatcher: Dispatcher, endpoint: XmlEndpoint, body: bytes) -> list[bytes]:
    """From the body of a request to that of its answer, in the pieces in which it is sent."""
    call = endpoint.decode(body)
    outcome = dispatcher.call(call.method, call.params, LOCAL)
    assert isinstance(outcome, Answer)
    return endpoint.encode(call, outcome)


async def session_of(dispatcher: Dispatcher) -> str:
    """Log in as a local client does."""
    outcome = dispatcher.call("session.login_with_password", ["root", "", "1.0", "bench"], LOCAL)
    return str((outcome if isinstance(outcome, Answer) else await outcome).value)


def change(host: Serving, round_: int) -> None:
    """Give one machine in a hundred another description."""
    machines = host.engine.database.refs("VM")
    with host.engine.database.transaction() as transaction:
        for ref in machines[: max(1, len(machines) // 100)]:
            transaction.update("VM", ref, name_description=f"changed in round {round_}")


async def measure(state: Path, rounds: int) -> dict[str, list[float]]:
    """See the module. Rounds alternate between what is measured."""
    settings = Settings({"hypervisor": "sim", "https": Endpoint("127.0.0.1", 0), "state_dir": state})
    async with serving(settings) as host:
        dispatcher, endpoint = host.engine.dispatcher(implementations(host.stack), UNIMPLEMENTED), XmlEndpoint(GRAPH)
        body = request("VM.get_all_records", await session_of(dispatcher)).partition(b"\r\n\r\n")[2]
        first = b"".join(answer(dispatcher, endpoint, body))
        plain = xmlrpc.client.loads(first)[0]
        found: dict[str, list[float]] = {"same": [], "changed": [], "dumps": []}
        gc.collect()
        gc.freeze()  # the decoded copy of everything is the benchmark's, not the server's to walk through
        for number in range(rounds):
            change(host, number)
            found["changed"].append(_seconds(dispatcher, endpoint, body))
            for _ in range(3):
                found["same"].append(_seconds(dispatcher, endpoint, body))
            if number < 3:
                begin = time.perf_counter()
                xmlrpc.client.dumps(plain, methodresponse=True)
                found["dumps"].append(time.perf_counter() - begin)
            await asyncio.sleep(0)
        return found


def _seconds(dispatcher: Dispatcher, endpoint: XmlEndpoint, body: bytes) -> float:
    begin = time.perf_counter()
    answer(dispatcher, endpoint, body)
    return time.perf_counter() - begin


if __name__ == "__main__":
    json.dump(asyncio.run(measure(Path(sys.argv[1]), int(sys.argv[2]))), sys.stdout)
