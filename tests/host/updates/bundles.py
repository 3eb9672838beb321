"""Wheels and bundles for tests: small ones made by hand, and the real package under another version."""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

from domzero.cli import bundle
from tests.house.sources import ROOT

HONEST = """
import sys
from importlib.metadata import version
print("domzero", version("domzero"))
"""


def wheel(directory: Path, version: str, main: str = HONEST, name: str = "domzero") -> Path:
    """A package with nothing but a command line."""
    files = {f"{name}/__init__.py": "", f"{name}/cli/__init__.py": "", f"{name}/cli/main.py": main}
    return _zipped(directory, name, version, {path: text.encode() for path, text in files.items()})


def real_wheel(directory: Path, version: str) -> Path:
    """The package that is tested, under another version."""
    source = ROOT / "src"
    paths = [path for path in (source / "domzero").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return _zipped(directory, "domzero", version, {str(path.relative_to(source)): path.read_bytes() for path in paths})


def _zipped(directory: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    entries = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{entry},,\n" for entry in (*entries, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in {**entries, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(entry, data)
    return path


def command(*words: str | Path) -> int:
    """Run `domzero bundle …` in this process."""
    parser = argparse.ArgumentParser()
    bundle.add_arguments(parser)
    return bundle.run(parser.parse_args([str(word) for word in words]))


def keys(directory: Path, name: str = "maker") -> tuple[Path, Path]:
    """A new pair: private, public."""
    pair = directory / f"{name}-private.pem", directory / f"{name}.pem"
    assert command("key", *pair) == 0
    return pair


def made(
    directory: Path, private: Path, version: str, *wheels: Path, requires: str = "", name: str = "a patch"
) -> Path:
    """A signed bundle."""
    path = directory / f"{version}-{len(list(directory.iterdir()))}.bundle"
    options = ("--key", private, "--output", path, "--name", name, "--release", version, "--requires", requires)
    assert command("make", *options, *wheels) == 0
    return path


def trust(state: Path, public: Path) -> None:
    """Have a host trust a key."""
    (state / "updates" / "keys").mkdir(parents=True, exist_ok=True)
    (state / "updates" / "keys" / public.name).write_bytes(public.read_bytes())
