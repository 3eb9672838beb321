"""Whether a guest has taken a device that was plugged: its driver says so to the device itself (virtio's DRIVER_OK).

QEMU tells nobody when that happens, so it is asked, often at first: most guests answer within some milliseconds.
"""

from __future__ import annotations

import asyncio

from domzero.host.hypervisor.protocol import GuestNotRespondingError, RunState
from domzero.host.hypervisor.qemu.domain import Domain
from domzero.host.hypervisor.qemu.monitor import CommandRefusedError

READY = "VIRTIO_CONFIG_S_DRIVER_OK"
"""A device's status bit by which a driver says that it is ready (Virtual I/O Device 1.1, section 2.1)."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.25
PAUSE_SHARE = 0.1
"""A pause is that part of the time waited so far, so that a guest's answer is noticed at most so much later."""


async def wait_for_driver(domain: Domain, device: str, what: str, timeout: float) -> None:
    """Return when the guest drives a virtio device. Raises `GuestNotRespondingError` after `timeout` seconds.

    A domain that is paused is not waited for, nor is anything where this QEMU cannot tell.
    """
    loop = asyncio.get_running_loop()
    begin = loop.time()
    while domain.state is RunState.RUNNING:
        waited = loop.time() - begin
        if waited > timeout:
            raise GuestNotRespondingError(f"no driver in the guest took {what} in {timeout:g} seconds")
        # No guest answers at once, and while QEMU is being asked its guest may have to wait.
        await asyncio.sleep(min(max(PAUSE_SHARE * waited, SHORTEST_PAUSE), LONGEST_PAUSE))
        if await _is_driven(domain, device):
            return


async def _is_driven(domain: Domain, device: str) -> bool:
    path = f"/machine/peripheral/{device}/virtio-backend"
    try:
        found = await domain.monitor.execute("x-query-virtio-status", path=path)
    except CommandRefusedError:
        return True  # QEMU before 7.2 does not know the command
    return any(str(bit).startswith(READY) for bit in found["status"]["statuses"])
