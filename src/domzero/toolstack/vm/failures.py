"""What drivers raise, in the API's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from domzero.engine.errors import ApiError
from domzero.host.hypervisor.protocol import DomainNotFoundError, HypervisorError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.admission import bad_power_state


@contextmanager
def starting(stack: Stack, vm: Ref) -> Iterator[None]:
    """A domain that could not be built: FAILED_TO_START_EMULATOR."""
    try:
        yield
    except HypervisorError as error:
        raise ApiError("FAILED_TO_START_EMULATOR", vm, stack.hypervisor.capabilities().name, str(error)) from error


@contextmanager
def acting_on(vm: Ref, *expected: str) -> Iterator[None]:
    """Work on a living domain: VM_BAD_POWER_STATE when it ended on the way, else INTERNAL_ERROR with what was said.

    `expected` are the power states that the operation asks for, Running where none is given.
    """
    try:
        yield
    except DomainNotFoundError as error:
        raise bad_power_state(vm, expected or ("Running",), "Halted") from error
    except HypervisorError as error:
        raise ApiError("INTERNAL_ERROR", str(error)) from error
