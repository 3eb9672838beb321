"""What a network card may send: locking, allowed addresses, rate. It holds at once, also for running machines."""

from __future__ import annotations

from collections.abc import Mapping

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref
from domzero.toolstack.addressing import allowed_ipv4, allowed_ipv6
from domzero.toolstack.cards import change_rules
from domzero.toolstack.stack import Stack


@implements("VIF.set_locking_mode")
async def set_locking_mode(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Filter the card's traffic in another way."""
    await change_rules(stack, self, locking_mode=value)


@implements("VIF.set_ipv4_allowed")
async def set_ipv4_allowed(stack: Stack, context: Context, self: Ref, value: tuple[str, ...]) -> None:
    """Replace the addresses that a locked card may use. Raises INVALID_IP_ADDRESS_SPECIFIED."""
    await change_rules(stack, self, ipv4_allowed=allowed_ipv4(value))


@implements("VIF.add_ipv4_allowed")
async def add_ipv4_allowed(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Allow one address more. Raises INVALID_IP_ADDRESS_SPECIFIED."""
    present = stack.database.get("VIF", self, "ipv4_allowed")
    await change_rules(stack, self, ipv4_allowed=allowed_ipv4((*present, value)))


@implements("VIF.remove_ipv4_allowed")
async def remove_ipv4_allowed(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Allow one address less; one that was not allowed is no error."""
    present = stack.database.get("VIF", self, "ipv4_allowed")
    gone = {value, *allowed_ipv4((value,))}
    await change_rules(stack, self, ipv4_allowed=tuple(address for address in present if address not in gone))


@implements("VIF.set_ipv6_allowed")
async def set_ipv6_allowed(stack: Stack, context: Context, self: Ref, value: tuple[str, ...]) -> None:
    """Replace the addresses that a locked card may use. Raises INVALID_IP_ADDRESS_SPECIFIED."""
    await change_rules(stack, self, ipv6_allowed=allowed_ipv6(value))


@implements("VIF.add_ipv6_allowed")
async def add_ipv6_allowed(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Allow one address more. Raises INVALID_IP_ADDRESS_SPECIFIED."""
    present = stack.database.get("VIF", self, "ipv6_allowed")
    await change_rules(stack, self, ipv6_allowed=allowed_ipv6((*present, value)))


@implements("VIF.remove_ipv6_allowed")
async def remove_ipv6_allowed(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Allow one address less; one that was not allowed is no error."""
    present = stack.database.get("VIF", self, "ipv6_allowed")
    gone = {value, *allowed_ipv6((value,))}
    await change_rules(stack, self, ipv6_allowed=tuple(address for address in present if address not in gone))


@implements("VIF.set_qos_algorithm_type")
async def set_qos_algorithm_type(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Choose how traffic is limited: `ratelimit`; anything else does not limit it."""
    await change_rules(stack, self, qos_algorithm_type=value)


@implements("VIF.set_qos_algorithm_params")
async def set_qos_algorithm_params(stack: Stack, context: Context, self: Ref, value: Mapping[str, str]) -> None:
    """Replace the limit's settings: `kbps` in kilobytes a second; `timeslice_us` is taken and means nothing."""
    await change_rules(stack, self, qos_algorithm_params=value)


@implements("VIF.add_to_qos_algorithm_params")
async def add_to_qos_algorithm_params(stack: Stack, context: Context, self: Ref, key: str, value: str) -> None:
    """Add one setting. Raises MAP_DUPLICATE_KEY."""
    present = stack.database.get("VIF", self, "qos_algorithm_params")
    if key in present:
        raise ApiError("MAP_DUPLICATE_KEY", "VIF", "qos_algorithm_params", self, key)
    await change_rules(stack, self, qos_algorithm_params={**present, key: value})


@implements("VIF.remove_from_qos_algorithm_params")
async def remove_from_qos_algorithm_params(stack: Stack, context: Context, self: Ref, key: str) -> None:
    """Take one setting away; one that is not there is no error."""
    present = stack.database.get("VIF", self, "qos_algorithm_params")
    left = {name: value for name, value in present.items() if name != key}
    await change_rules(stack, self, qos_algorithm_params=left)
