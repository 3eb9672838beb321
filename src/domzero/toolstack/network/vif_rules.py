"""What a network card may send: locking, allowed addresses, rate. It holds at once, also for running machines."""

from __future__ import annotations

from collections.abc import Mapping

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.idl.records import Record
from domzero.idl.types import Ref
from domzero.toolstack.network.addressing import allowed_ipv4, allowed_ipv6
from domzero.toolstack.network.cards import change_rules
from domzero.toolstack.stack import Stack


@implements("VIF.set_locking_mode")
async def set_locking_mode(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Filter the card's traffic in another way."""
    await change_rules(stack, self, lambda _: {"locking_mode": value})


@implements("VIF.set_ipv4_allowed")
async def set_ipv4_allowed(stack: Stack, context: Context, self: Ref, value: tuple[str, ...]) -> None:
    """Replace the addresses that a locked card may use. Raises INVALID_IP_ADDRESS_SPECIFIED."""
    addresses = allowed_ipv4(value)
    await change_rules(stack, self, lambda _: {"ipv4_allowed": addresses})


@implements("VIF.add_ipv4_allowed")
async def add_ipv4_allowed(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Allow one address more. Raises INVALID_IP_ADDRESS_SPECIFIED."""
    added = allowed_ipv4((value,))
    await change_rules(stack, self, lambda vif: {"ipv4_allowed": with_these(vif["ipv4_allowed"], added)})


@implements("VIF.remove_ipv4_allowed")
async def remove_ipv4_allowed(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Allow one address less; one that was not allowed is no error."""
    gone = allowed_ipv4((value,))
    await change_rules(stack, self, lambda vif: {"ipv4_allowed": without_these(vif["ipv4_allowed"], gone)})


@implements("VIF.set_ipv6_allowed")
async def set_ipv6_allowed(stack: Stack, context: Context, self: Ref, value: tuple[str, ...]) -> None:
    """Replace the addresses that a locked card may use. Raises INVALID_IP_ADDRESS_SPECIFIED."""
    addresses = allowed_ipv6(value)
    await change_rules(stack, self, lambda _: {"ipv6_allowed": addresses})


@implements("VIF.add_ipv6_allowed")
async def add_ipv6_allowed(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Allow one address more. Raises INVALID_IP_ADDRESS_SPECIFIED."""
    added = allowed_ipv6((value,))
    await change_rules(stack, self, lambda vif: {"ipv6_allowed": with_these(vif["ipv6_allowed"], added)})


@implements("VIF.remove_ipv6_allowed")
async def remove_ipv6_allowed(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Allow one address less; one that was not allowed is no error."""
    gone = allowed_ipv6((value,))
    await change_rules(stack, self, lambda vif: {"ipv6_allowed": without_these(vif["ipv6_allowed"], gone)})


def with_these(present: tuple[str, ...], added: tuple[str, ...]) -> tuple[str, ...]:
    """Both, in order, nothing twice."""
    return tuple(dict.fromkeys((*present, *added)))


def without_these(present: tuple[str, ...], gone: tuple[str, ...]) -> tuple[str, ...]:
    """What is left, in order."""
    return tuple(address for address in present if address not in gone)


@implements("VIF.set_qos_algorithm_type")
async def set_qos_algorithm_type(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Choose how traffic is limited: `ratelimit`; anything else does not limit it."""
    await change_rules(stack, self, lambda _: {"qos_algorithm_type": value})


@implements("VIF.set_qos_algorithm_params")
async def set_qos_algorithm_params(stack: Stack, context: Context, self: Ref, value: Mapping[str, str]) -> None:
    """Replace the limit's settings: `kbps` in kilobytes a second; `timeslice_us` is taken and means nothing."""
    await change_rules(stack, self, lambda _: {"qos_algorithm_params": value})


@implements("VIF.add_to_qos_algorithm_params")
async def add_to_qos_algorithm_params(stack: Stack, context: Context, self: Ref, key: str, value: str) -> None:
    """Add one setting. Raises MAP_DUPLICATE_KEY."""

    def added(vif: Record) -> Mapping[str, object]:
        if key in vif["qos_algorithm_params"]:
            raise ApiError("MAP_DUPLICATE_KEY", "VIF", "qos_algorithm_params", self, key)
        return {"qos_algorithm_params": {**vif["qos_algorithm_params"], key: value}}

    await change_rules(stack, self, added)


@implements("VIF.remove_from_qos_algorithm_params")
async def remove_from_qos_algorithm_params(stack: Stack, context: Context, self: Ref, key: str) -> None:
    """Take one setting away; one that is not there is no error."""

    def left(vif: Record) -> Mapping[str, object]:
        params = vif["qos_algorithm_params"]
        return {"qos_algorithm_params": {name: value for name, value in params.items() if name != key}}

    await change_rules(stack, self, left)
