"""Which accelerator to use, and why.

`/dev/kvm` opening, and even QEMU starting on it, does not mean that a guest runs there; QEMU's own fall-back
(`accel=kvm:tcg`) looks no further. So after the processor's flags a tiny guest decides, once per boot of the host.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.process import ProcessError, run

Choice = Literal["auto", "kvm", "tcg"]

PROBE_SECONDS = 5.0
PROBE_LINE = b"domzero probe\n"
SERIAL_PORT = 0x3F8
EXIT_PORT = 0xF4
ROM_SIZE = 64 << 10
"""QEMU takes firmware in steps of 64 KiB and maps the last byte at 4 GiB."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An accelerator and the sentence that says why."""

    accelerator: str
    reason: str


def has_virtualization(cpuinfo: str) -> bool:
    """Whether /proc/cpuinfo lists Intel's or AMD's extensions."""
    flags = [line.partition(":")[2].split() for line in cpuinfo.splitlines() if line.startswith("flags")]
    return any(not {"vmx", "svm"}.isdisjoint(found) for found in flags)


def probe_rom(line: bytes = PROBE_LINE) -> bytes:
    """Firmware that prints a line on the first serial port and ends QEMU through `isa-debug-exit`.

    The processor starts at the last 16 bytes, in 16-bit mode with cs:ip = f000:fff0; from there a near jump leads to
    the start of the same 64 KiB.
    """
    code = bytearray()
    code += b"\xba" + SERIAL_PORT.to_bytes(2, "little")  # mov dx, serial port
    for byte in line:
        code += b"\xb0" + bytes([byte]) + b"\xee"  # mov al, byte; out dx, al
    code += b"\xb0\x00\xe6" + bytes([EXIT_PORT])  # mov al, 0; out exit port, al
    code += b"\xf4\xeb\xfd"  # hlt; jmp to the hlt
    reset = 0xFFF0
    jump = b"\xe9" + ((0 - (reset + 3)) & 0xFFFF).to_bytes(2, "little")
    rom = bytearray(b"\xf4" * ROM_SIZE)
    rom[: len(code)] = code
    rom[reset : reset + len(jump)] = jump
    return bytes(rom)


async def guest_prints(binary: str, accelerator: str, timeout: float = PROBE_SECONDS) -> bool:
    """Whether a guest runs under an accelerator: it must print its line within `timeout` seconds."""
    with tempfile.TemporaryDirectory(prefix="domzero-probe-") as directory:
        rom = Path(directory) / "probe.bin"
        rom.write_bytes(probe_rom())
        argv = [
            *(binary, "-no-user-config", "-nodefaults", "-machine", "pc", "-accel", accelerator, "-m", "16"),
            *("-bios", str(rom), "-display", "none", "-monitor", "none", "-serial", "stdio"),
            *("-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=4"),
        ]
        try:
            completed = await run(argv, timeout=timeout, check=False)
        except ProcessError:
            return False
    return PROBE_LINE in completed.stdout


async def decide(choice: Choice, binary: str, cpuinfo: str, boot_id: str, cache: Path) -> Decision:
    """Choose, asking the probe guest at most once per boot. Raises `HypervisorError` when KVM is demanded and fails."""
    if choice == "tcg":
        return Decision("tcg", "TCG was asked for.")
    found = _cached(cache, boot_id)
    if found is None:
        found = await _find(binary, cpuinfo)
        _remember(cache, boot_id, found)
    if choice == "kvm" and found.accelerator != "kvm":
        raise HypervisorError(f"KVM was asked for. {found.reason}")
    return found


async def _find(binary: str, cpuinfo: str) -> Decision:
    if not has_virtualization(cpuinfo):
        return Decision("tcg", "The processor does not offer vmx or svm, so KVM cannot run guests.")
    if await guest_prints(binary, "kvm"):
        return Decision("kvm", "A test guest ran under KVM.")
    return Decision("tcg", f"A test guest under KVM printed nothing within {PROBE_SECONDS:g} seconds.")


def _remember(cache: Path, boot_id: str, found: Decision) -> None:
    cache.write_text(json.dumps({"boot_id": boot_id, **asdict(found)}))


def _cached(cache: Path, boot_id: str) -> Decision | None:
    try:
        found = json.loads(cache.read_text())
        return Decision(found["accelerator"], found["reason"]) if found["boot_id"] == boot_id else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
