"""What the hypervisor says of a device, in the API's words."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from domzero.engine.errors import ApiError
from domzero.host.hypervisor.protocol import DomainNotFoundError, GuestNotRespondingError, HypervisorError
from domzero.idl.types import Ref
from domzero.toolstack.vm.admission import bad_power_state
from domzero.toolstack.vm.failures import acting_on

Result = TypeVar("Result")


async def attaching(vm: Ref, cls: str, ref: Ref, answer: Awaitable[Result]) -> Result:
    """What the hypervisor answers to putting something into the machine. DEVICE_ATTACH_TIMEOUT when the guest did not
    take it; other errors as `acting_on` words them."""
    with acting_on(vm):
        try:
            return await answer
        except GuestNotRespondingError as error:
            raise ApiError("DEVICE_ATTACH_TIMEOUT", cls, ref) from error


async def detaching(vm: Ref, cls: str, ref: Ref, answer: Awaitable[None]) -> None:
    """Wait for a device to be out. DEVICE_DETACH_TIMEOUT when the guest kept silent, DEVICE_DETACH_REJECTED with the
    reason when it would not, VM_BAD_POWER_STATE when the machine ended meanwhile."""
    try:
        await answer
    except DomainNotFoundError as error:
        raise bad_power_state(vm, ("Running",), "Halted") from error
    except GuestNotRespondingError as error:
        raise ApiError("DEVICE_DETACH_TIMEOUT", cls, ref) from error
    except HypervisorError as error:
        raise ApiError("DEVICE_DETACH_REJECTED", cls, ref, str(error)) from error
