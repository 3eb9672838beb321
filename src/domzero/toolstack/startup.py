"""What happens between opening the database and answering the first call."""

from __future__ import annotations

import asyncio
from typing import Any

from domzero.host.hypervisor.protocol import DomainStatus
from domzero.host.storage.protocol import DriverInfo
from domzero.toolstack.blobs.blob import recover as recover_blobs
from domzero.toolstack.gates import refresh_changed
from domzero.toolstack.host.crash_dumps import find_crashes
from domzero.toolstack.host.rows import ensure_pool_and_host
from domzero.toolstack.network.cards import rejoin_cards
from domzero.toolstack.network.network_startup import start_networks
from domzero.toolstack.patches.rules import recover as recover_patches
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage.first_repositories import ensure_repositories
from domzero.toolstack.storage.media import replug_all, scan_all
from domzero.toolstack.storage.tools_disc import ensure_tools_disc
from domzero.toolstack.transfer.import_recovery import recover as recover_imports
from domzero.toolstack.vm.adoption import machine_of
from domzero.toolstack.vm.consoles import refresh_locations, settle_host_consoles
from domzero.toolstack.vm.core_dumps import discard_unfinished
from domzero.toolstack.vm.templates import ensure_templates


async def start_up(stack: Stack, domains: list[DomainStatus]) -> None:
    """Make the rows true to this machine: host, storage, network, templates, and the domains found running.

    At the first start everything an installed XenServer has is made. What is missing (a medium, an interface) is
    logged; it does not keep the host from serving. Operations are recomputed of what this changes; `keep_house` begins
    with those of all other objects.
    """
    before, first = stack.database.generation, not stack.database.refs("host")
    machine = await asyncio.to_thread(stack.facts.machine)
    ensure_pool_and_host(stack, machine)
    ensure_drivers(stack)
    moved = await start_networks(stack, first=first)
    await ensure_repositories(stack)
    await ensure_tools_disc(stack)
    await replug_all(stack)
    # Before machines are adopted: that boots some, and their cards must stay.
    await stack.network.retain({status.domid for status in domains if machine_of(stack, status) is not None})
    await discard_unfinished(stack)
    await recover_imports(stack)
    await stack.machines.adopt(domains)
    await rejoin_cards(stack, moved)
    settle_host_consoles(stack)
    refresh_locations(stack)
    await scan_all(stack)
    ensure_templates(stack)
    await recover_blobs(stack)
    await find_crashes(stack)
    await recover_patches(stack)
    refresh_changed(stack.database, stack.gates, before)
    await stack.database.durable()


def ensure_drivers(stack: Stack) -> None:
    """One SM object per storage driver, refreshed; those of drivers that are gone are removed."""
    known = {row.record["type"]: ref for ref, row in stack.database.rows("SM").items()}
    with stack.database.transaction() as transaction:
        for type, driver in stack.storage.items():
            fields = sm_fields(driver.info())
            if type in known:
                transaction.update("SM", known.pop(type), **fields)
            else:
                transaction.create("SM", fields)
        for ref in known.values():
            transaction.destroy("SM", ref)


def sm_fields(info: DriverInfo) -> dict[str, Any]:
    """The SM object of a driver."""
    return {
        "name_label": info.name,
        "name_description": info.description,
        "type": info.type,
        "vendor": info.vendor,
        "copyright": info.copyright,
        "version": info.version,
        "required_api_version": info.required_api_version,
        "configuration": info.configuration,
        "capabilities": info.capabilities,
        "features": dict.fromkeys(info.capabilities, 1),
    }
