"""What a machine's firmware says of its maker and model: set once, by hand or from a host."""

from __future__ import annotations

from collections.abc import Mapping

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack

SETTABLE = (
    "bios-vendor",
    "bios-version",
    "system-manufacturer",
    "system-product-name",
    "system-version",
    "system-serial-number",
    "baseboard-manufacturer",
    "baseboard-product-name",
    "baseboard-version",
    "baseboard-serial-number",
    "baseboard-asset-tag",
    "baseboard-location-in-chassis",
    "enclosure-asset-tag",
)
"""The strings that may be set, by the names that XenServer gives to fields of the SMBIOS tables."""
LONGEST = 512
GENERIC = {
    "bios-vendor": "domzero",
    "bios-version": "",
    "system-manufacturer": "domzero",
    "system-product-name": "HVM domU",
    "system-version": "",
    "system-serial-number": "",
}
"""What is shown of strings that were not set."""


@implements("VM.set_bios_strings")
def set_bios_strings(stack: Stack, context: Context, self: Ref, value: dict[str, str]) -> None:
    """Set strings by hand, once. Raises VM_BIOS_STRINGS_ALREADY_SET, INVALID_VALUE [key, value]."""
    check_strings(value)
    _set_once(stack, self, {**GENERIC, **value})


@implements("VM.copy_bios_strings")
def copy_bios_strings(stack: Stack, context: Context, vm: Ref, host: Ref) -> None:
    """Take over a host's strings, once. Raises VM_BIOS_STRINGS_ALREADY_SET."""
    _set_once(stack, vm, {**GENERIC, **stack.database.get("host", host, "bios_strings")})


def check_strings(strings: Mapping[str, str]) -> None:
    """Raises INVALID_VALUE for unknown keys and for text that SMBIOS cannot hold: printable ASCII without blanks
    around, at most `LONGEST` characters."""
    for key, text in strings.items():
        sound = text.isascii() and text.isprintable() and text == text.strip() and 0 < len(text) <= LONGEST
        if key not in SETTABLE or not sound:
            raise ApiError("INVALID_VALUE", key, text[:LONGEST])


def _set_once(stack: Stack, vm: Ref, strings: dict[str, str]) -> None:
    if stack.database.get("VM", vm, "bios_strings"):
        raise ApiError("VM_BIOS_STRINGS_ALREADY_SET")
    with stack.database.transaction() as transaction:
        transaction.update("VM", vm, bios_strings=strings)
