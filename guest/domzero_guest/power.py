"""What the host asks of the whole machine: `control/shutdown` and `control/sysrq`. Decisions only."""

from typing import Dict, NamedTuple, Optional, Tuple

POWEROFF, REBOOT, SUSPEND = "poweroff", "reboot", "suspend"
REQUESTS = {b"poweroff": POWEROFF, b"halt": POWEROFF, b"reboot": REBOOT, b"suspend": SUSPEND}
"""Requests and what is done. A machine that halts without going off would never be seen to have ended."""

_SYSTEMD = {POWEROFF: ("systemctl", "poweroff"), REBOOT: ("systemctl", "reboot")}
_OTHERS = {POWEROFF: ("shutdown", "-h", "-P", "now"), REBOOT: ("shutdown", "-r", "now")}

_GROUPS: Dict[int, str] = {
    2: "0123456789",
    4: "kr",
    8: "cdlmptwz",
    16: "s",
    32: "u",
    64: "efijv",
    128: "bo",
    256: "nq",
}
"""Keys of each bit of `kernel.sysrq` (Linux, `Documentation/admin-guide/sysrq.rst`)."""


class Asked(NamedTuple):
    """A request that is obeyed: it is acknowledged first, then the command is run where there is one."""

    action: str
    command: Optional[Tuple[str, ...]]


def shutdown(value: bytes, systemd: bool) -> Optional[Asked]:
    """What to do for a value of `control/shutdown`; None for one that is no request, which is not acknowledged."""
    action = REQUESTS.get(value)
    if action is None:
        return None
    return Asked(action, (_SYSTEMD if systemd else _OTHERS).get(action))


def sysrq_key(value: bytes, allowed: int) -> Optional[str]:
    """The key to hand to the kernel, None where it is no key or `kernel.sysrq` (`allowed`) does not let it through."""
    key = value.decode("ascii", "replace")
    if len(key) != 1:
        return None
    group = next((bit for bit, keys in _GROUPS.items() if key in keys), 0)
    return key if group and (allowed == 1 or allowed & group) else None
