"""Keys, buttons and interrupts for a guest."""

from __future__ import annotations

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.qemu.domain import Domain

NAMED_KEYS = {" ": "spc", "-": "minus", "=": "equal", ",": "comma", ".": "dot", "/": "slash", ";": "semicolon"}
"""QKeyCode of the keys whose name is not their character."""


async def power_button(domain: Domain) -> None:
    """Press the ACPI power button."""
    await domain.monitor.execute("system_powerdown")


def key_code(character: str) -> str:
    """QEMU's name (QKeyCode) of the key with that character. Raises `HypervisorError` for one no keyboard here has."""
    if len(character) == 1 and character.isascii() and character.isalnum():
        return character.lower()
    if character in NAMED_KEYS:
        return NAMED_KEYS[character]
    raise HypervisorError(f"there is no key {character!r}")


async def sysrq(domain: Domain, key: str) -> None:
    """Press Alt, SysRq and a key. Raises `HypervisorError` for an unknown key."""
    await press(domain, "alt", "sysrq", key_code(key))


async def press(domain: Domain, *codes: str) -> None:
    """Press keys together on the PS/2 keyboard and let go."""
    await domain.monitor.execute("send-key", keys=[{"type": "qcode", "data": code} for code in codes])


async def trigger(domain: Domain, name: str) -> None:
    """Inject `nmi`, `reset`, `power` or `sleep` (the ACPI sleep key). Raises `HypervisorError` for others."""
    if name == "nmi":
        await domain.monitor.execute("inject-nmi")
    elif name == "reset":
        await domain.monitor.execute("system_reset")
    elif name == "power":
        await power_button(domain)
    elif name == "sleep":
        await press(domain, "sleep")
    else:
        raise HypervisorError(f"there is no trigger {name!r}")
