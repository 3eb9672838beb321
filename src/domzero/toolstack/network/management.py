"""Which interface carries management traffic, and the host's name."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.transactions import Transaction
from domzero.host.control.protocol import ControlError
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.network.host_address import management_pif, primary_address, settle_authority
from domzero.toolstack.network.interfaces import refresh_interfaces_if_possible
from domzero.toolstack.network.pif import plug_locked
from domzero.toolstack.network.pif_rules import assert_here, configuring, plugged_names
from domzero.toolstack.network.probation import assert_no_probation, reshape_on_probation
from domzero.toolstack.stack import Stack

LEASE_PATIENCE = 30.0
"""Seconds that a DHCP server may take to give an address."""
LEASE_LOOK = 0.5

DISABLED_FILE = "management-disabled"
"""In the state directory while callers from outside are not let in."""

HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")
LONGEST_NAME = 64
"""HOST_NAME_MAX of Linux."""


@implements("host.management_reconfigure")
async def management_reconfigure(stack: Stack, context: Context, pif: Ref) -> None:
    """Have management traffic go by another interface. The change is on probation.

    Raises PIF_HAS_NO_NETWORK_CONFIGURATION, PIF_HAS_NO_V6_NETWORK_CONFIGURATION, INTERFACE_HAS_NO_IP,
    CANNOT_PLUG_BOND_SLAVE, PIF_NOT_ATTACHED_TO_HOST, PIF_CONFIGURATION_ERROR, OTHER_OPERATION_IN_PROGRESS.
    """
    async with stack.networking.lock:
        assert_no_probation(stack)
        assert_here(stack, pif)
        _assert_configured(stack, pif)
        record = stack.database.record("PIF", pif)
        if record["managed"] and not record["currently_attached"]:
            await plug_locked(stack, pif)
        address = await _address(stack, pif)
        before = management_pif(stack)
        names = plugged_names(stack, pif) | (plugged_names(stack, before) if before else set())

        def move(transaction: Transaction) -> None:
            if before is not None:
                transaction.update("PIF", before, management=False, disallow_unplug=False)
            transaction.update("PIF", pif, management=True, disallow_unplug=True)
            transaction.update("host", stack.host, address=address)

        with configuring(pif):
            await reshape_on_probation(stack, move, names)
        settle_authority(stack)
        await _let_in(stack)


def _assert_configured(stack: Stack, pif: Ref) -> None:
    record = stack.database.record("PIF", pif)
    if record["bond_slave_of"] != NULL_REF:
        raise ApiError("CANNOT_PLUG_BOND_SLAVE", pif)
    if record["primary_address_type"] == "IPv6":
        if record["ipv6_configuration_mode"] == "None":
            raise ApiError("PIF_HAS_NO_V6_NETWORK_CONFIGURATION", pif)
    elif record["ip_configuration_mode"] == "None":
        raise ApiError("PIF_HAS_NO_NETWORK_CONFIGURATION", pif)


async def _address(stack: Stack, pif: Ref) -> str:
    """The interface's address, for which a DHCP server may need a moment. Raises INTERFACE_HAS_NO_IP."""
    clock = stack.clock
    deadline = clock.monotonic() + LEASE_PATIENCE
    while True:
        await refresh_interfaces_if_possible(stack)
        record = stack.database.record("PIF", pif)
        address = primary_address(record)
        if address:
            return address
        if not record["managed"] or clock.monotonic() >= deadline:
            raise ApiError("INTERFACE_HAS_NO_IP", record["device"])
        await clock.sleep(LEASE_LOOK)


@implements("host.local_management_reconfigure")
async def local_management_reconfigure(stack: Stack, context: Context, interface: str) -> None:
    """As `host.management_reconfigure`, by the name of a device or bridge. Raises PIF_DEVICE_NOT_FOUND."""
    await management_reconfigure(stack, context, _by_name(stack, interface))


def _by_name(stack: Stack, interface: str) -> Ref:
    database = stack.database
    for ref, row in database.rows("PIF").items():
        pif = row.record
        network = database.find("network", pif["network"])
        bridge = network.record["bridge"] if network is not None else ""
        if pif["host"] == stack.host and interface and interface in (bridge, pif["device"] if pif["VLAN"] < 0 else ""):
            return ref
    raise ApiError("PIF_DEVICE_NOT_FOUND")


@implements("host.management_disable")
async def management_disable(stack: Stack, context: Context) -> None:
    """Let only local callers in, until management is given an interface again. Addresses stay as they are."""
    async with stack.networking.lock:
        assert_no_probation(stack)
        await asyncio.to_thread(_disabled_file(stack).touch, 0o600)
        stack.networking.management_disabled = True
        before = management_pif(stack)
        if before is not None:
            with stack.database.transaction() as transaction:
                transaction.update("PIF", before, management=False, disallow_unplug=False)
        await stack.database.durable()
        await stack.remote.close()


async def keep_disabled(stack: Stack) -> None:
    """At a start: let nobody in from outside where management was disabled."""
    if await asyncio.to_thread(_disabled_file(stack).exists):
        stack.networking.management_disabled = True
        await stack.remote.close()


async def _let_in(stack: Stack) -> None:
    file = _disabled_file(stack)
    if await asyncio.to_thread(file.exists):
        try:
            await stack.remote.open()
        except OSError as error:
            raise ApiError("INTERNAL_ERROR", f"Callers from outside cannot be let in: {error}") from error
        await asyncio.to_thread(file.unlink, missing_ok=True)
    stack.networking.management_disabled = False


def _disabled_file(stack: Stack) -> Path:
    return stack.settings.state_dir / DISABLED_FILE


@implements("pool.management_reconfigure")
async def pool_management_reconfigure(stack: Stack, context: Context, network: Ref) -> None:
    """As `host.management_reconfigure` on every host, by its interface on that network. Raises PIF_NOT_PRESENT."""
    pifs = {stack.database.get("PIF", pif, "host"): pif for pif in stack.database.get("network", network, "PIFs")}
    for host in stack.database.refs("host"):
        if host not in pifs:
            raise ApiError("PIF_NOT_PRESENT", host, network)
    await management_reconfigure(stack, context, pifs[stack.host])


@implements("host.set_hostname_live")
async def set_hostname_live(stack: Stack, context: Context, host: Ref, hostname: str) -> None:
    """Give the machine another name. The certificate stays, since clients remember it.

    Raises HOST_NAME_INVALID with the reason, INTERNAL_ERROR when the machine refuses.
    """
    stack.database.row("host", host)
    check_hostname(hostname)
    try:
        await stack.control.set_hostname(hostname)
    except ControlError as error:
        raise ApiError("INTERNAL_ERROR", str(error)) from error
    with stack.database.transaction() as transaction:
        transaction.update("host", host, hostname=hostname)


def check_hostname(name: str) -> None:
    """Raises HOST_NAME_INVALID for what RFC 1123 or Linux does not take as a host's name."""
    if not name:
        raise ApiError("HOST_NAME_INVALID", "The name is empty.")
    if len(name) > LONGEST_NAME:
        raise ApiError("HOST_NAME_INVALID", f"The name is longer than {LONGEST_NAME} characters.")
    if not HOST_NAME.fullmatch(name) or not name.isascii():
        raise ApiError("HOST_NAME_INVALID", "A name has letters, digits and hyphens, in parts with dots between.")
    if name.rpartition(".")[2].isdigit():
        raise ApiError("HOST_NAME_INVALID", "The name could be taken for an address.")
