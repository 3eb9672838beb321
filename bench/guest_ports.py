"""The host's xenstore with guests' ports, by itself: `python -m bench.guest_ports DIRECTORY DOMAINS`.

In the directory is `host`. For each domain it connects to a socket there (`1` and so on), on which somebody listens as
QEMU does.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from bench.processes import READY
from bench.xenstore_server import listening
from domzero.host.clock import SystemClock
from domzero.host.guest_port.sockets import PortSockets
from domzero.host.xenstore.service import xenstore


async def serve(directory: Path, domains: int) -> None:
    """Serve for ever; domains are joined when a line comes on the standard input."""
    clock = SystemClock()
    async with xenstore(directory / "journal", clock) as service:
        await service.server.serve(listening(directory / "host"))
        ports = PortSockets(service.server, clock)
        print(READY, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for domid in range(1, domains + 1):
            service.local.introduce(domid)
            ports.join(domid, directory / str(domid))
        await service.keep()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
