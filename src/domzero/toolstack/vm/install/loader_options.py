"""What `PV_bootloader_args` asks of pygrub, and what the kernel arguments of a Xen guest become here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence

from domzero.host.bootloader.protocol import LoaderOptions

TAKEN = ("entry", "kernel", "ramdisk", "offset", "args")
IGNORED = ("-q", "--quiet")
"""There is nobody whom pygrub could ask."""
LENGTH_LIMIT = 2048

_XEN_CONSOLE = re.compile(r"console=(?:hvc0|xvc0|tty)(?=[,\s]|$)")
_XEN_DISK = re.compile(r"/dev/(?:xvd|sd|hd)([a-p])(?=[0-9]*(?:\s|$))")


def loader_options(text: str, arguments: str) -> LoaderOptions:
    """The options of pygrub(1) that make sense here: --entry, --kernel, --ramdisk, --offset, --args.

    `arguments` are the machine's own kernel arguments, put last. Raises `ValueError`, whose text says what is wrong.
    """
    if len(text) > LENGTH_LIMIT or len(arguments) > LENGTH_LIMIT or not (text + arguments).isprintable():
        raise ValueError(f"PV_bootloader_args and PV_args are lines of at most {LENGTH_LIMIT} letters")
    chosen: dict[str, str] = {}
    try:
        words = iter(shlex.split(text))
    except ValueError:
        raise ValueError("PV_bootloader_args has a quotation without an end") from None
    for word in words:
        if word in IGNORED:
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in TAKEN:
            raise ValueError(f"pygrub has no option {word[:40]} here; there are --{', --'.join(TAKEN)}")
        chosen[name] = value if equals else next(words, "")
    offset = chosen.get("offset", "")
    if offset and not (offset.isascii() and offset.isdecimal() and len(offset) < 19):
        raise ValueError("--offset in PV_bootloader_args is no number of bytes")
    return LoaderOptions(
        chosen.get("entry", ""),
        chosen.get("kernel", ""),
        chosen.get("ramdisk", ""),
        int(offset) if offset else None,
        " ".join(part for part in (chosen.get("args", ""), arguments) if part),
    )


def for_virtio(arguments: str, positions: Sequence[int]) -> str:
    """Kernel arguments without Xen's names: its console is the first serial line here, its disks are virtio's.

    `positions` are those of the machine's hard disks: virtio's names count them alone.
    """
    return _XEN_DISK.sub(_renamed(sorted(positions)), _XEN_CONSOLE.sub("console=ttyS0", arguments))


def _renamed(positions: Sequence[int]) -> Callable[[re.Match[str]], str]:
    def name(match: re.Match[str]) -> str:
        position = ord(match[1]) - ord("a")
        return f"/dev/vd{chr(ord('a') + positions.index(position))}" if position in positions else match[0]

    return name
