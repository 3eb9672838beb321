"""Small files that the network backends keep: whole or not at all, readable by root alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from domzero.host.network.addresses import Addressing, Ipv6Switches, RouteState
from domzero.host.network.layout import State
from domzero.host.network.protocol import NetworkError


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file at once, its directory being made if need be. Raises `NetworkError`."""
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
        new.replace(path)
    except OSError as error:
        raise NetworkError(f"{path} cannot be written: {error.strerror}") from error


def remove(path: Path) -> None:
    """A file that is not there is no error. Raises `NetworkError`."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise NetworkError(f"{path} cannot be removed: {error.strerror}") from error


def read(path: Path) -> str | None:
    """None when there is no such file. Raises `NetworkError`."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NetworkError(f"{path} cannot be read: {error.strerror}") from error


def read_found(path: Path) -> dict[str, State]:
    """The interfaces that are not ours and were changed, as they were before; none when there is no record."""
    text = read(path)
    if text is None:
        return {}
    try:
        return {name: _state(fields) for name, fields in json.loads(text).items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NetworkError(f"{path} does not say what the interfaces were before: {error}") from error


def write_found(path: Path, found: Mapping[str, State]) -> None:
    """Keep what `read_found` returns."""
    if found:
        write(path, json.dumps({name: asdict(state) for name, state in sorted(found.items())}, indent=1))
    else:
        remove(path)


def _state(fields: Mapping[str, Any]) -> State:
    switches = fields["ipv6_switches"]
    return State(
        **{
            **fields,
            "ipv4": _addressing(fields["ipv4"]),
            "ipv6": _addressing(fields["ipv6"]),
            "ipv6_switches": None if switches is None else Ipv6Switches(**switches),
        }
    )


def _addressing(fields: Mapping[str, Any] | None) -> Addressing | None:
    if fields is None:
        return None
    return Addressing(tuple(fields["addresses"]), tuple(RouteState(**route) for route in fields["routes"]))
