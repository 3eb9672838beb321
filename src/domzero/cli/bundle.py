"""`domzero bundle key|make|check`: the update bundles that `xe patch-upload` takes; docs/updates.md explains them."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from domzero.wire.bundle import Manifest, Wheel


class KeyFileError(Exception):
    """What is wrong, for a person."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    key = actions.add_parser("key", help="make a key to sign with")
    key.add_argument("private", type=Path, help="where to put the private half; keep it away from hosts")
    key.add_argument("public", type=Path, help="where to put the public half, for hosts that are to trust it")
    make = actions.add_parser("make", help="make and sign a bundle of wheels")
    make.add_argument("--key", type=Path, required=True, metavar="FILE", help="the private half of a key")
    make.add_argument("--output", type=Path, required=True, metavar="FILE")
    make.add_argument("--name", required=True)
    make.add_argument("--description", default="")
    make.add_argument("--release", required=True, metavar="VERSION", help="the version of domzero that is in it")
    make.add_argument("--requires", default="", metavar="VERSION", help="what it replaces, such as 0.1.0 or 0.1.*")
    make.add_argument("--guidance", action="append", metavar="WORD", help="restartXAPI unless said otherwise")
    make.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    check = actions.add_parser("check", help="check a bundle's signature and content")
    check.add_argument("--key", type=Path, required=True, metavar="FILE", help="the public half of a key")
    check.add_argument("bundle", type=Path)


def run(arguments: argparse.Namespace) -> int:
    """Carry the sub-command out. Returns the exit code."""
    from domzero.wire.bundle import BundleError

    try:
        actions = {"key": _key, "make": _make, "check": _check}
        actions[arguments.action](arguments)
    except (KeyFileError, BundleError) as error:
        print(f"domzero: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except OSError as error:
        print(f"domzero: {error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _key(arguments: argparse.Namespace) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    for path, data, mode in ((arguments.private, private, 0o600), (arguments.public, public, 0o644)):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)


def _make(arguments: argparse.Namespace) -> None:
    from domzero.wire import bundle

    key = _private(arguments.key)
    with ExitStack() as files:
        wheels = [_wheel(path) for path in arguments.wheels]
        manifest = bundle.encode(_manifest(arguments, wheels))
        contents = [
            (wheel.name, files.enter_context(path.open("rb")), wheel.size)
            for wheel, path in zip(wheels, arguments.wheels, strict=True)
        ]
        target = files.enter_context(arguments.output.open("xb"))
        bundle.write(target, manifest, key.sign(bundle.CONTEXT + manifest), contents)


def _manifest(arguments: argparse.Namespace, wheels: list[Wheel]) -> Manifest:
    from domzero.wire.bundle import Manifest

    guidance = tuple(arguments.guidance or ("restartXAPI",))
    return Manifest(
        str(uuid.uuid4()), arguments.name, arguments.description, arguments.release, arguments.requires, guidance,
        tuple(wheels),
    )  # fmt: skip


def _wheel(path: Path) -> Wheel:
    from domzero.wire.bundle import Wheel

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Wheel(path.name, file.tell(), digest)


def _check(arguments: argparse.Namespace) -> None:
    from domzero.wire import bundle

    with arguments.bundle.open("rb") as source:
        manifest = bundle.read_manifest(source, [_public(arguments.key)])
        for _, content in bundle.read_wheels(source, manifest):
            for _ in content:
                pass
    needs = manifest.required_version or "any version"
    print(f"{manifest.uuid} {manifest.name_label}: domzero {manifest.version}, replaces {needs}")  # noqa: T201
    for wheel in manifest.wheels:
        print(f"  {wheel.name}")  # noqa: T201


def _private(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"{path} holds no private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds no Ed25519 key")
    return key


def _public(path: Path) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError as error:
        raise KeyFileError(f"{path} holds no public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path} holds no Ed25519 key")
    return key
