"""A guest that talks: Tiny Linux with Debian's Python, nftables and xenstore tools, and the agent.

It is Tiny Linux's ramdisk with a second archive behind it, which the kernel unpacks over the first (Linux,
Documentation/driver-api/early-userspace/buffer-format.rst). What is in it comes from this machine's Debian packages
`python3-minimal`, `nftables` and `xenstore-utils`, and from the disc that `script/guest-tools` makes. Beside them are
the files in `inside`: there is no systemd, no xrdp and no udev, and what they do for the agent is stood in for.

The guest says `GUEST UP` on its first serial line when the agent has been started, and runs each line that it reads
there, answering `DONE <token> <exit code>`: see `tests.host.qemu.guest.Console`.
"""

from __future__ import annotations

import asyncio
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

from domzero.host.guest_image import build, cpio, default_roots, find_kernel
from domzero.host.guest_image.kernel import load_order, module_name, read_module
from tests.house.sources import ROOT

INSIDE = Path(__file__).with_name("inside")
PYTHON = Path("/usr/bin/python3")
NFT = Path("/usr/sbin/nft")
XENSTORE = Path("/usr/bin/xenstore")
TOOLS = tuple(f"xenstore-{name}" for name in ("chmod", "exists", "list", "ls", "read", "rm", "watch", "write"))
NEEDED = (PYTHON, NFT, XENSTORE)
"""Without these there is no such guest; Debian's packages `python3`, `nftables` and `xenstore-utils` have them."""
MODULES = ("nf_tables",)
AGENT = "usr/lib/domzero-guest"

_EXTRA = ("encodings.ascii", "encodings.latin_1", "shutil", "tempfile")
"""Modules that are imported only when something is asked for, or only by the programs in `inside`."""

_COLLECT = """
import importlib, pathlib, py_compile, sys
agent, target, *extra = sys.argv[1:]
sys.path.insert(0, agent)
for name in ["domzero_guest.__main__", *extra]:
    importlib.import_module(name)
library = pathlib.Path(importlib.util.__file__).resolve().parents[1]
for module in list(sys.modules.values()):
    path = pathlib.Path(getattr(module, "__file__", None) or "/")
    if library not in path.parents or "dist-packages" in path.parts:
        continue
    copy = pathlib.Path(target + str(path))
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(path.read_bytes())
    if path.suffix == ".py":
        py_compile.compile(str(copy), dfile=str(path), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
print(pathlib.Path(sys.executable).resolve())
"""
"""Run by Debian's Python: copies what the agent imports, compiled, since that is slow under emulation."""


def make(directory: Path) -> tuple[Path, Path]:
    """Make the guest's kernel and ramdisk in a directory; their paths."""
    image = asyncio.run(build(directory / "tiny"))
    root = directory / "root"
    root.mkdir()
    _install_python(root)
    _install_programs(root)
    _install_agent(directory, root)
    ramdisk = directory / "talking"
    ramdisk.write_bytes(image.ramdisk.read_bytes() + cpio.archive([*_entries(root), *_modules()]))
    return image.kernel, ramdisk


def _install_python(root: Path) -> None:
    command = (PYTHON, "-I", "-c", _COLLECT, ROOT / "guest", root, *_EXTRA)
    program = Path(_output(*command).strip())
    _copy(root, program)
    (root / "usr/bin/python3").symlink_to(program.name)
    libraries = root.rglob("*.so")
    _copy(root, *_loaded(program, *libraries))


def _install_programs(root: Path) -> None:
    libraries = _loaded(XENSTORE, NFT)
    library_c = next(path for path in libraries if path.name.startswith("libc.so"))
    # xenstore-watch ends a thread, for which the C library loads this one.
    _copy(root, XENSTORE, NFT, *libraries, library_c.with_name("libgcc_s.so.1"))
    for name in TOOLS:
        (root / "usr/bin" / name).symlink_to(XENSTORE.name)


def _install_agent(directory: Path, root: Path) -> None:
    """As the disc's README says."""
    disc = directory / "disc"
    _output(ROOT / "script/guest-tools", directory / "tools.iso")
    _output("xorriso", "-osirrox", "on", "-indev", directory / "tools.iso", "-extract", "/", disc)
    _output("sh", disc / "Linux/install.sh", "--root", root)


def _entries(root: Path) -> Iterator[cpio.Entry]:
    for path in sorted(root.rglob("*")):
        name, mode = path.relative_to(root).as_posix(), path.lstat().st_mode
        if stat.S_ISLNK(mode):
            yield cpio.symlink(name, str(path.readlink()))
        elif stat.S_ISDIR(mode):
            yield cpio.directory(name)
        else:
            yield cpio.file(name, path.read_bytes(), stat.S_IMODE(mode) & 0o755)
    made = {path.relative_to(root) for path in root.rglob("*") if path.is_dir()}
    for path in sorted(INSIDE.rglob("*")):
        place = path.relative_to(INSIDE)
        if path.is_dir():
            if place not in made:
                yield cpio.directory(place.as_posix())
        else:
            yield cpio.file(place.as_posix(), path.read_bytes(), 0o755 if path.read_bytes()[:2] == b"#!" else 0o644)
    yield cpio.file("sbin/tiny-hotplug", _hotplug_without_processors(), 0o755)


def _hotplug_without_processors() -> bytes:
    """Tiny Linux switches processors on by itself, which here is the agent's to do."""
    text = (files("domzero.host.guest_image") / "files" / "hotplug").read_text()
    switched = text.replace('        echo 1 >"/sys$DEVPATH/online"\n', "")
    assert switched != text
    return switched.encode()


def _modules() -> Iterator[cpio.Entry]:
    kernel = find_kernel(default_roots())
    assert kernel is not None
    order = load_order((kernel.modules / "modules.dep").read_text(), MODULES)
    for path in order:
        yield cpio.file(f"lib/modules/{module_name(path)}.ko", read_module(kernel.modules / path))
    yield cpio.file("lib/modules/firewall", "".join(f"{module_name(path)}\n" for path in order).encode())


def _loaded(*programs: Path) -> set[Path]:
    """The shared libraries that programs need, and what loads them."""
    found: set[Path] = set()
    for program in programs:
        found |= {Path(word) for word in _output("ldd", program).split() if word.startswith("/")}
    return found


def _copy(root: Path, *files: Path) -> None:
    for file in files:
        target = root / file.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        target.chmod(0o755)


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def missing() -> Iterable[str]:
    """What this machine lacks to make the guest."""
    return [str(path) for path in NEEDED if not path.exists()]
