"""Whether what a repository has sent can be an installer. Many servers, and networks that want a login first, answer
any address with a page and call that a success."""

from __future__ import annotations

from pathlib import Path

BOOT_FLAG, MAGIC = (0x1FE, b"\x55\xaa"), (0x202, b"HdrS")
"""Where every kernel for x86 since Linux 1.3.73 has these bytes (Linux, Documentation/arch/x86/boot.rst)."""
MIB = 1 << 20


def objection(kernel: Path, ramdisk: Path, memory: int) -> str:
    """Why a machine with so many bytes of memory cannot boot the two; empty where it can. Blocking.

    Raises `OSError`.
    """
    with kernel.open("rb") as file:
        head = file.read(MAGIC[0] + len(MAGIC[1]))
    if any(head[place : place + len(said)] != said for place, said in (BOOT_FLAG, MAGIC)):
        return "what was sent as its kernel is no Linux kernel"
    size = kernel.stat().st_size + ramdisk.stat().st_size
    if size >= memory:
        return f"it has {-(-size // MIB)} MiB, and the machine's memory {memory // MIB} MiB"
    return ""
