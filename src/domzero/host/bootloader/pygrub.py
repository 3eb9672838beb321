"""`DiskLoader` by pygrub, the boot loader of Xen (Debian: xen-utils), shut in with the disk it reads."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from domzero.finish import in_thread
from domzero.host.bootloader.protocol import FoundKernel, LoaderError, LoaderOptions
from domzero.host.bootloader.sandbox import BUBBLEWRAP, INPUT, OUTPUT, Limits, confined
from domzero.host.bootloader.view import shown
from domzero.host.hypervisor.spec import DiskSource
from domzero.host.process import ENVIRONMENT, ProcessError, run_leader

PYGRUB = "pygrub"
PACKAGES = {PYGRUB: "xen-utils-4.17 (or another xen-utils)", BUBBLEWRAP: "bubblewrap"}
"""Program → Debian's package."""
LARGEST = 512 << 20
"""Bytes of a kernel or RAM disk."""
PATIENCE = 60.0
"""Seconds that a disk may take."""
ARGUMENTS_LIMIT = 4096
REASON_LIMIT = 200


class Pygrub:
    """Implements `DiskLoader`. `runtime` is a directory of ours alone; `user` whom pygrub becomes (None: not root)."""

    def __init__(self, runtime: Path, user: int | None) -> None:
        self._runtime = runtime
        self._user = user

    async def find(self, disk: DiskSource, options: LoaderOptions, kernel: Path, ramdisk: Path) -> FoundKernel:
        for program, package in PACKAGES.items():
            if shutil.which(program, path=ENVIRONMENT["PATH"]) is None:
                raise LoaderError(f"{program} is not installed on the host; Debian's package is {package}")
        place = self._runtime / f"loader-{uuid4().hex[:12]}"
        try:
            try:
                await in_thread(_make_place, place, self._user)
                async with shown(disk, place / "disk", self._user):
                    limits = Limits(file=LARGEST)
                    argv = confined(command_line(options), place / "disk", place / "out", self._user, limits)
                    said = await run_leader(argv, timeout=PATIENCE)
                if said.trouble:
                    raise LoaderError(f"pygrub cannot boot the machine's disk: {said.trouble}")
                if said.returncode != 0:
                    raise LoaderError(reason(said.stderr))
                return await in_thread(_take, place / "out", answer(said.stdout), kernel, ramdisk)
            finally:
                await in_thread(shutil.rmtree, place, ignore_errors=True)
        except BaseException as error:
            await in_thread(_remove, (kernel, ramdisk))
            if isinstance(error, ProcessError):
                raise LoaderError(str(error)) from error
            if isinstance(error, OSError):
                raise LoaderError(f"what is on the disk cannot be booted: {error.strerror}") from error
            raise


def command_line(options: LoaderOptions) -> list[str]:
    """What runs inside the sandbox."""
    argv = [PYGRUB, "--quiet", "--output-format=simple0", f"--output-directory={OUTPUT}"]
    chosen = {
        "entry": options.entry,
        "kernel": options.kernel,
        "ramdisk": options.ramdisk,
        "offset": "" if options.offset is None else str(options.offset),
        "args": options.arguments,
    }
    return [*argv, *(f"--{name}={value}" for name, value in chosen.items() if value), "--", INPUT]


def answer(output: bytes) -> dict[str, str]:
    """The names of the files in the output directory, and `args`, out of what pygrub said (`simple0`).

    The answer is the guest's as much as ours: raises `LoaderError` for all that is not as it should be.
    """
    found: dict[str, str] = {}
    for row in output.decode(errors="replace").split("\0"):
        key, blank, value = row.partition(" ")
        if not blank or key in found:
            continue
        found[key] = value
    arguments = found.get("args", "")
    if not arguments.isprintable() or len(arguments) > ARGUMENTS_LIMIT:
        raise LoaderError("the kernel arguments in the disk's boot menu are no line of text")
    files = {key: value for key, value in found.items() if key in ("kernel", "ramdisk")}
    names = {key: value.removeprefix(f"{OUTPUT}/").lstrip("/") for key, value in files.items()}
    if "kernel" not in names or any("/" in name or name in ("", ".", "..") for name in names.values()):
        raise LoaderError("pygrub found no kernel on the disk")
    return {**names, "args": arguments}


def reason(errors: bytes) -> str:
    """What pygrub's last words mean for the person who started the machine."""
    last = next((line for line in reversed(errors.decode(errors="replace").splitlines()) if line.strip()), "")
    text = "".join(letter for letter in last if letter.isprintable())[:REASON_LIMIT]
    if "Unable to find partition" in text:
        return "pygrub found no partition with a boot menu and a kernel on the machine's disk"
    return f"pygrub cannot boot the machine's disk: {text or 'it ended without a word'}"


def _make_place(place: Path, user: int | None) -> None:
    place.mkdir(0o700)
    (place / "disk").touch(0o600)
    (place / "out").mkdir(0o700)
    if user is not None:
        os.chown(place / "out", user, user)


def _take(directory: Path, found: dict[str, str], kernel: Path, ramdisk: Path) -> FoundKernel:
    """Copy the files from the sandbox's directory, where only plain files are believed."""
    for key, target in (("kernel", kernel), ("ramdisk", ramdisk)):
        if key in found:
            _copy(directory / found[key], target)
    return FoundKernel(kernel, ramdisk if "ramdisk" in found else None, found["args"])


def _copy(source: Path, target: Path) -> None:
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= LARGEST:
            raise LoaderError("the kernel or RAM disk on the disk is empty or too large")
        with target.open("wb") as copy:
            shutil.copyfileobj(file, copy)
    target.chmod(0o644)


def _remove(files: Sequence[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
