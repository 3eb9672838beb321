"""What QEMU says when it cannot do something, for people who do not know QEMU."""

from __future__ import annotations

import re

LOCKED = re.compile(r'Failed to get (?:shared )?"[a-z ]+" lock')
"""Another process has the image open (QEMU's image locking)."""
PREAMBLE = re.compile(r"^(?:qemu-[\w-]+: )?(?:-\w[\w-]*(?: \{.*\}| \S+)?: )?")
"""The program and the option it speaks of, which may hold a whole description of a disk."""
COMMAND = re.compile(r" \(QEMU, asked for [\w-]+\)")
"""What `monitor.CommandRefusedError` adds."""
SLOT = re.compile(r'"(?:image|layer|file|part)-(\d+)-\d+"')


def explained(said: str) -> str:
    """The reason alone, from a program's messages or from the text of a refused command."""
    lines = [line for line in said.strip().splitlines() if line.strip()]
    if not lines:
        return "QEMU did not say why"
    if LOCKED.search(said):
        reason = "an image is in use by another domain or program"
    else:
        reason = "; ".join(COMMAND.sub("", PREAMBLE.sub("", line)).strip() for line in lines[-3:])
    slot = SLOT.search(said)
    return reason if slot is None else f"disk {slot[1]}: {reason}"
