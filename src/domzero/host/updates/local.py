"""Updates of the toolstack that runs here, by `pip`, beside what is installed.

Nothing that is installed is changed. The wheels go into a directory of their own, which is tried with the interpreter
that runs now; only then a single file is replaced, which says that the next start is from there (`overlay`). So a crash
at any moment leaves either the old version or the new one, whole.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from domzero.finish import in_thread
from domzero.host.process import ProcessError, run
from domzero.host.updates import overlay
from domzero.host.updates.protocol import Bundle, BundleError, InstallError, Started
from domzero.wire import bundle as codec

log = logging.getLogger(__name__)

KEYS = "keys"
PATIENCE = 300.0
"""Seconds that `pip` may take."""
WORK = ".part"


class LocalUpdates:
    """Implements `Updates`. `directory` holds the keys that are trusted (`keys/*.pem`) and the updates themselves."""

    def __init__(self, directory: Path, *, python: str = sys.executable, running: str = "") -> None:
        self._directory = directory
        self._python = python
        self._running = running or version("domzero")
        self._turn = asyncio.Lock()

    async def inspect(self, file: Path) -> Bundle:
        return await in_thread(self._inspect, file)

    async def install(self, file: Path) -> str:
        async with self._turn:
            return await self._install(file)

    async def _install(self, file: Path) -> str:
        bundle = await self.inspect(file)
        part = overlay.site(self._directory, bundle.uuid).with_suffix(WORK)
        try:
            wheels = await in_thread(self._unpack, file, part)
            said = await self._pip(part / "site", wheels)
            await self._try(part / "site", bundle.version)
            await in_thread(self._activate, bundle.uuid, part)
        except OSError as error:
            raise InstallError(f"{error.filename or file}: {error.strerror}") from error
        finally:
            await in_thread(shutil.rmtree, part, True)
        log.info("version %s runs from the next start on", bundle.version)
        return said

    async def started(self) -> Started:
        return await in_thread(self._started)

    def _inspect(self, file: Path) -> Bundle:
        try:
            with file.open("rb") as source:
                manifest = codec.read_manifest(source, self._keys())
                for _, content in codec.read_wheels(source, manifest):
                    for _ in content:
                        pass
                if source.seek(0, os.SEEK_END) > codec.LARGEST:
                    raise BundleError(f"a bundle has at most {codec.LARGEST} bytes")
        except codec.BundleError as error:
            raise BundleError(str(error)) from error
        except OSError as error:
            raise BundleError(f"the bundle cannot be read: {error.strerror}") from error
        return Bundle(
            manifest.uuid, manifest.name_label, manifest.name_description, manifest.version,
            manifest.required_version, manifest.guidance, manifest.fits(self._running),
        )  # fmt: skip

    def _keys(self) -> list[codec.Verifier]:
        """The keys that are trusted; a file that holds none is passed over with a warning."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        found: list[codec.Verifier] = []
        for path in sorted((self._directory / KEYS).glob("*.pem")):
            try:
                key = load_pem_public_key(path.read_bytes())
            except (OSError, ValueError, UnsupportedAlgorithm) as error:
                log.warning("%s holds no key: %s", path, error)
                continue
            if isinstance(key, Ed25519PublicKey):
                found.append(key)
            else:
                log.warning("%s holds no Ed25519 key", path)
        return found

    def _unpack(self, file: Path, part: Path) -> list[Path]:
        """The wheels as files. What is written was verified on the way. Raises `BundleError`, `OSError`."""
        shutil.rmtree(part, ignore_errors=True)
        (part / "wheels").mkdir(mode=0o700, parents=True)
        wheels = []
        try:
            with file.open("rb") as source:
                for wheel, content in codec.read_wheels(source, codec.read_manifest(source, self._keys())):
                    path = part / "wheels" / wheel.name
                    with path.open("xb") as target:
                        for data in content:
                            target.write(data)
                    wheels.append(path)
        except codec.BundleError as error:
            raise BundleError(str(error)) from error
        return wheels

    async def _pip(self, site: Path, wheels: list[Path]) -> str:
        """Install wheels, and nothing else, into a directory; no code of theirs runs."""
        options = ("--no-index", "--no-deps", "--no-cache-dir", "--no-input", "--disable-pip-version-check")
        pip: list[str | Path] = [
            self._python,
            "-I",
            "-m",
            "pip",
            "install",
            *options,
            "--only-binary",
            ":all:",
            "--target",
            site,
        ]
        environment = {"PIP_CONFIG_FILE": os.devnull, "HOME": str(site.parent)}
        try:
            done = await run([*pip, *wheels], timeout=PATIENCE, environment=environment)
        except ProcessError as error:
            raise InstallError(str(error)) from error
        return done.stdout.decode(errors="replace")

    async def _try(self, site: Path, version: str) -> None:
        """Have the new version say who it is, with what is installed beside it."""
        command = [self._python, "-P", "-m", "domzero.cli.main", "--version"]
        try:
            done = await run(command, environment={"PYTHONPATH": str(site)}, directory=site)
        except ProcessError as error:
            raise InstallError(f"the new version does not run: {error}") from error
        said = done.stdout.decode(errors="replace").strip()
        if said != f"domzero {version}":
            raise InstallError(f"the new version should be domzero {version} and says {said[:200]!r}")

    def _activate(self, uuid: str, part: Path) -> None:
        target = overlay.site(self._directory, uuid)
        shutil.rmtree(target, ignore_errors=True)
        (part / "site").rename(target)
        if uuid in (taken_back := overlay.read_taken_back(self._directory)):
            overlay.write_json(self._directory / overlay.TAKEN_BACK, [other for other in taken_back if other != uuid])
        os.sync()  # the packages before what says that they are to be used
        current = overlay.read_current(self._directory)
        before = current.uuid if current.proven else current.before
        overlay.write_current(self._directory, overlay.Current(uuid, before if before != uuid else ""))

    def _started(self) -> Started:
        directory = self._directory
        current = overlay.read_current(directory)
        if current.uuid and current.uuid == os.environ.get(overlay.VARIABLE) and not current.proven:
            overlay.write_current(directory, overlay.Current(current.uuid, current.before, proven=True))
        taken_back = overlay.read_taken_back(directory)
        installed = directory / overlay.INSTALLED
        if installed.is_dir():
            for path in installed.iterdir():
                if path.name not in (current.uuid, current.before):
                    shutil.rmtree(path, ignore_errors=True)
        return Started(self._running, os.environ.get(overlay.VARIABLE, ""), tuple(taken_back))
