"""Update bundles: a plain tar of a manifest, its signature, and the Python wheels that it lists, in this order.

`manifest.json` names every wheel with its size and SHA-256; `manifest.sig` is the Ed25519 signature (RFC 8032, 64
bytes) of the context line followed by the manifest's bytes. So whoever trusts the key can trust every byte, and nothing
that is not listed can be in a bundle. No I/O beyond the file objects that are handed in; docs/updates.md is for people.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

FORMAT = 1
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
CONTEXT = b"domzero update bundle 1\n"
"""What keeps a signature of something else from being taken for one of a manifest."""
LARGEST_MANIFEST = 64 << 10
LARGEST_WHEEL = 64 << 20
LARGEST = 256 << 20
"""Bytes of a whole bundle."""
MOST_WHEELS = 32
CHUNK = 1 << 20
PACKAGE = "domzero"

GUIDANCE = ("restartXAPI", "restartHost", "restartHVM", "restartPV")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!_]{0,63}")
_REQUIRED = re.compile(r"([0-9A-Za-z][0-9A-Za-z.+!_]{0,63}(\.\*)?)?")
_WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]{0,99}-[A-Za-z0-9][A-Za-z0-9.+!_]{0,63}(-[A-Za-z0-9._]{1,99}){3,4}\.whl")


class BundleError(Exception):
    """The file is no bundle, is damaged, or is not signed by anybody who is trusted; the text says what is wrong."""


class Verifier(Protocol):
    """A public key; see `cryptography`'s Ed25519PublicKey."""

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raises an exception for a signature that is not this key's."""
        ...


@dataclass(frozen=True, slots=True)
class Wheel:
    """A file of the bundle."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle is. `required_version` is empty for any, a version, or the beginning of one with `.*` behind."""

    uuid: str
    name_label: str
    name_description: str
    version: str
    required_version: str
    guidance: tuple[str, ...]
    wheels: tuple[Wheel, ...]

    def fits(self, version: str) -> bool:
        """Whether it is meant to replace that version."""
        if self.required_version.endswith(".*"):
            return version.startswith(self.required_version[:-1]) or version == self.required_version[:-2]
        return self.required_version in ("", version)


def encode(manifest: Manifest) -> bytes:
    """The manifest's bytes. Raises `BundleError` for one that `decode` would refuse."""
    fields = {
        "format": FORMAT,
        "uuid": manifest.uuid,
        "name_label": manifest.name_label,
        "name_description": manifest.name_description,
        "version": manifest.version,
        "required_version": manifest.required_version,
        "after_apply_guidance": list(manifest.guidance),
        "wheels": [{"name": wheel.name, "size": wheel.size, "sha256": wheel.sha256} for wheel in manifest.wheels],
    }
    data = json.dumps(fields, indent=1).encode()
    if decode(data) != manifest:
        raise BundleError("the manifest cannot be written")
    return data


def decode(data: bytes) -> Manifest:
    """The manifest that the bytes are. Raises `BundleError`."""
    try:
        fields = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST} is no JSON") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise BundleError(f"{MANIFEST} has another format")
    version = _text(fields, "version", _VERSION)
    guidance = fields.get("after_apply_guidance")
    if not isinstance(guidance, list) or any(word not in GUIDANCE for word in guidance):
        raise BundleError("after_apply_guidance is no list of what is known")
    listed = fields.get("wheels")
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_WHEELS:
        raise BundleError("there are no wheels, or too many")
    wheels = tuple(_wheel(entry) for entry in listed)
    if len({wheel.name.lower() for wheel in wheels}) != len(wheels):
        raise BundleError("a wheel is listed twice")
    if not any(wheel.name.startswith(f"{PACKAGE}-{version}-") for wheel in wheels):
        raise BundleError(f"there is no wheel of {PACKAGE} {version}")
    return Manifest(
        _text(fields, "uuid", _UUID),
        _text(fields, "name_label"),
        _text(fields, "name_description"),
        version,
        _text(fields, "required_version", _REQUIRED),
        tuple(dict.fromkeys(guidance)),
        wheels,
    )


def _text(fields: Mapping[str, Any], name: str, form: re.Pattern[str] | None = None) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or len(value) > 1000 or not (value.isprintable() or form is None):
        raise BundleError(f"{name} is no text")
    if form is not None and form.fullmatch(value) is None:
        raise BundleError(f"{name} is not as it should be")
    return value


def _wheel(entry: object) -> Wheel:
    if not isinstance(entry, dict):
        raise BundleError("an entry of the wheels is none")
    size, digest = entry.get("size"), entry.get("sha256")
    if type(size) is not int or not 0 < size <= LARGEST_WHEEL:
        raise BundleError("the size of a wheel is impossible")
    if not isinstance(digest, str) or re.fullmatch("[0-9a-f]{64}", digest) is None:
        raise BundleError("the digest of a wheel is none")
    return Wheel(_text(entry, "name", _WHEEL), size, digest)


def write(target: BinaryIO, manifest: bytes, signature: bytes, wheels: Sequence[tuple[str, BinaryIO, int]]) -> None:
    """Write a bundle of a manifest, its signature, and the wheels by name, content and size."""
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in ((MANIFEST, manifest), (SIGNATURE, signature)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, _Bytes(data))
        for name, content, size in wheels:
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, content)


class _Bytes:
    """The bytes as a file that `tarfile` reads."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1) -> bytes:
        piece, self._data = (self._data, b"") if size < 0 else (self._data[:size], self._data[size:])
        return piece


def read_manifest(source: BinaryIO, keys: Collection[Verifier]) -> Manifest:
    """The manifest of a bundle, once its signature was found good. Raises `BundleError`.

    Nothing but the signature's own form is looked at before that. The file stands at the first wheel then.
    """
    data = _small(source, MANIFEST, LARGEST_MANIFEST)
    signature = _small(source, SIGNATURE, 64)
    if not any(_is_by(key, signature, CONTEXT + data) for key in keys):
        raise BundleError("no key that is trusted here has signed it" if keys else "no key is trusted here")
    return decode(data)


def _is_by(key: Verifier, signature: bytes, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def read_wheels(source: BinaryIO, manifest: Manifest) -> Iterator[tuple[Wheel, Iterator[bytes]]]:
    """Every wheel with its content, which is read to its end before the next one; then the bundle's end.

    Raises `BundleError` for anything that is not as listed, a content's own digest at its end.
    """
    for wheel in manifest.wheels:
        if _header(source, wheel.name) != wheel.size:
            raise BundleError(f"{wheel.name} has another size than is listed")
        yield wheel, _content(source, wheel)
    if source.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise BundleError("there is more in it than is listed")


def _content(source: BinaryIO, wheel: Wheel) -> Iterator[bytes]:
    digest = hashlib.sha256()
    left = wheel.size
    while left:
        data = source.read(min(left, CHUNK))
        if not data:
            raise BundleError("it ends too soon")
        left -= len(data)
        digest.update(data)
        yield data
    _padding(source, wheel.size)
    if digest.hexdigest() != wheel.sha256:
        raise BundleError(f"{wheel.name} is damaged")


def _small(source: BinaryIO, name: str, largest: int) -> bytes:
    size = _header(source, name)
    if size > largest:
        raise BundleError(f"{name} is too large")
    data = source.read(size)
    if len(data) != size:
        raise BundleError("it ends too soon")
    _padding(source, size)
    return data


def _header(source: BinaryIO, name: str) -> int:
    """The size in the header of a plain file, which must have that name. Extensions of tar are not taken."""
    block = source.read(tarfile.BLOCKSIZE)
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError, ValueError) as error:
        raise BundleError(f"{name} is not there: this is no bundle") from error
    if info.name != name or info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.size < 0:
        raise BundleError(f"{name} is not there: this is no bundle")
    return info.size


def _padding(source: BinaryIO, size: int) -> None:
    source.read(-size % tarfile.BLOCKSIZE)
