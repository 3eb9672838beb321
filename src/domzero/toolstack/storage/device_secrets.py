"""Passwords in a device_config, which clients keep apart: the key `NAME_secret` holds the uuid of a secret object.

Drivers get the secret's value under `NAME`. Whoever may read PBDs sees the uuid alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from domzero.engine.database import Database
from domzero.engine.errors import ApiError

SUFFIX: Final = "_secret"
INVALID_SECRET: Final = 20
"""The SM error number of a secret that is not there."""


def with_secrets(database: Database, config: Mapping[str, str]) -> dict[str, str]:
    """The configuration as a driver wants it. A secret that is not there is left out, for the driver to miss."""
    found = ((key, _value(database, uuid)) for key, uuid in config.items() if key.endswith(SUFFIX))
    values = {key.removesuffix(SUFFIX): value for key, value in found if value is not None}
    return {**config, **values}


def require_secrets(database: Database, config: Mapping[str, str]) -> None:
    """Raises SR_BACKEND_FAILURE_20 for a secret that is not there."""
    for key, uuid in config.items():
        if key.endswith(SUFFIX) and _value(database, uuid) is None:
            said = f"there is no secret {uuid!r}, which {key} names"
            raise ApiError(f"SR_BACKEND_FAILURE_{INVALID_SECRET}", "", said, "")


def _value(database: Database, uuid: str) -> str | None:
    row = database.tables.by_class["secret"].uuids.get(uuid)
    return None if row is None else str(row.record["value"])
