"""The address under which others reach this host, as it stands in rows and in addresses of pages."""

from __future__ import annotations

from urllib.parse import urlsplit

from domzero.idl.records import Record
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.consoles import refresh_locations


def management_pif(stack: Stack) -> Ref | None:
    """The PIF of this host that carries management traffic."""
    for ref, row in stack.database.rows("PIF").items():
        if row.record["host"] == stack.host and row.record["management"]:
            return ref
    return None


def primary_address(pif: Record) -> str:
    """The address of the kind that the PIF prefers, without prefix length; empty when it has none."""
    if pif["primary_address_type"] == "IPv6":
        return str(pif["IPv6"][0]).partition("/")[0] if pif["IPv6"] else ""
    return str(pif["IP"])


def follow_address(stack: Stack) -> None:
    """Make the host's address that of its management interface, where domzero looks after that one."""
    pif = management_pif(stack)
    if pif is None:
        return
    record = stack.database.record("PIF", pif)
    address = primary_address(record)
    if record["managed"] and address:
        with stack.database.transaction() as transaction:
            transaction.update("host", stack.host, address=address)
        settle_authority(stack)


def settle_authority(stack: Stack) -> None:
    """Have the addresses of pages begin with the host's address."""
    address = stack.database.get("host", stack.host, "address")
    if stack.authority and address:
        port = urlsplit(f"https://{stack.authority}").port
        authority = (f"[{address}]" if ":" in address else address) + (f":{port}" if port else "")
        if authority != stack.authority:
            stack.authority = authority
            refresh_locations(stack)
