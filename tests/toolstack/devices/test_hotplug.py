"""A guest's silence, in the API's words."""

from __future__ import annotations

import pytest

from domzero.engine.errors import ApiError
from domzero.host.hypervisor.protocol import GuestNotRespondingError
from domzero.toolstack.hotplug import attaching, detaching


async def silent() -> None:
    raise GuestNotRespondingError("nothing was heard of the guest")


async def test_a_guest_that_does_not_take_a_device() -> None:
    with pytest.raises(ApiError) as caught:
        await attaching("OpaqueRef:vm", "VBD", "OpaqueRef:vbd", silent())
    assert (caught.value.code, *caught.value.params) == ("DEVICE_ATTACH_TIMEOUT", "VBD", "OpaqueRef:vbd")


async def test_a_guest_that_does_not_give_one_back() -> None:
    with pytest.raises(ApiError) as caught:
        await detaching("OpaqueRef:vm", "VIF", "OpaqueRef:vif", silent())
    assert (caught.value.code, *caught.value.params) == ("DEVICE_DETACH_TIMEOUT", "VIF", "OpaqueRef:vif")
