"""Failures and delays of simulated repositories; the table is in `sim`."""

from __future__ import annotations

import math
import re

from domzero.host.clock import Clock
from domzero.host.storage import numbers
from domzero.host.storage.protocol import Repository, StorageError

PREFIX = "sim:"
VERBS = (
    "create",
    "attach",
    "detach",
    "destroy",
    "scan",
    "size",
    "create-disk",
    "destroy-disk",
    "clone-disk",
    "snapshot-disk",
    "copy-disk",
    "create-image",
    "resize-disk",
    "update-disk",
    "source",
)
CONTENT_VERBS = ("open-content", "read-content", "write-content")
"""What `contents` asks about, when bytes of a disk are moved."""
KEYS = {f"{kind}-{verb}" for kind in ("fail", "delay") for verb in VERBS + CONTENT_VERBS} | {"physical-size"}
PHYSICAL_SIZE = 1 << 40
FAILURE = re.compile(r"([0-9]{1,4})\b\s*(.*)", re.ASCII | re.DOTALL)


async def enter(verb: str, repository: Repository, clock: Clock) -> None:
    """Return when the verb may act. Raises `StorageError`: the one asked for, or 1 for settings that mean nothing."""
    settings = _settings(repository)
    delay = settings.get(f"delay-{verb}")
    if delay is not None:
        await clock.sleep(_number(f"delay-{verb}", delay))
    failure = settings.get(f"fail-{verb}")
    if failure is not None:
        match = FAILURE.fullmatch(failure)
        number, text = (int(match[1]), match[2]) if match else (numbers.GENERAL, failure)
        raise StorageError(number, text or f"{verb} fails because the tester asked for it")


def physical_size(repository: Repository) -> int:
    """Bytes that the simulated medium has."""
    written = _settings(repository).get("physical-size")
    return PHYSICAL_SIZE if written is None else int(_number("physical-size", written))


def _settings(repository: Repository) -> dict[str, str]:
    written = {**repository.sm_config, **repository.device_config}
    settings = {key.removeprefix(PREFIX): value for key, value in written.items() if key.startswith(PREFIX)}
    for key in settings.keys() - KEYS:
        raise StorageError(numbers.INVALID_ARGUMENT, f"the simulator knows no fault {PREFIX + key!r}")
    return settings


def _number(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise StorageError(numbers.INVALID_ARGUMENT, f"{PREFIX}{key} must be a number, not {value!r}")
    return number
