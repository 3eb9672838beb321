"""What Tiny Linux says about itself on its first serial line, and how to read it.

Each statement is a line of its own that begins with `tiny: `:

* `up kernel=VERSION cpus=N memory_kib=N boot_id=UUID`: user space began; the UUID is new at every boot.
* `boots=N`: `/data` (the first virtio disk, formatted when it was blank) is mounted, and this is its Nth boot.
* `no data disk`: there is none, or it holds something that is no file system of ours; it was left alone.
* `nic NAME added mac=MAC`, `nic NAME address=ADDRESS`, `nic NAME removed`.
* `disk NAME added bytes=N`, `disk NAME removed`, `cpus=N`: devices that came or went while running.
* `disk NAME resized bytes=N`: a disk that grew.
* `ready seconds=N`: start-up is over; the power button works from here on. Seconds since the kernel began.
* `tick N`: twice a second with the kernel argument `tiny.tick=1`. The counter lives in memory alone.
* `stopping (poweroff|reboot|halt)`: asked to stop; the disk is about to be clean.

Kernel arguments: `tiny.tick=1`, `tiny.hostname=NAME`. The login is `root`, without a password.
A guest controls its serial line: what is read here is its claim, good for tests and probes, never for a decision that
protects something.
"""

from __future__ import annotations

import re

TICK_ARGUMENT = "tiny.tick=1"
"""The kernel argument that makes the guest count aloud."""

STATEMENT = re.compile(rb"^tiny: ([^\r\n]{1,200})\r*$", re.MULTILINE)


def statements(log: bytes) -> list[str]:
    """All complete statements in what the guest wrote, in order, without the `tiny: `."""
    complete, _, _ = log.rpartition(b"\n")
    return [said.decode(errors="replace") for said in STATEMENT.findall(complete)]


def values(log: bytes, key: str) -> list[str]:
    """The values that were given to a key, in order: `values(log, "boots")` is `["1", "2"]` after two boots."""
    prefix = f"{key}="
    words = (word for said in statements(log) for word in said.split())
    return [word.removeprefix(prefix) for word in words if word.startswith(prefix)]


def is_ready(log: bytes) -> bool:
    """Whether the guest has said that its start-up is over."""
    return any(said.startswith("ready ") for said in statements(log))


def ticks(log: bytes) -> list[int]:
    """The counter's values that were printed, in order."""
    return [int(said.removeprefix("tick ")) for said in statements(log) if re.fullmatch(r"tick \d{1,9}", said)]
