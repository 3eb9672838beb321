"""What a command sees of the objects: whole classes, read once and kept for as long as the command needs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from domzero.xe.api import Api

Object = Mapping[str, Any]
"""The fields of an object, by their wire names."""


class View:
    """A consistent enough look at some classes. `load` reads; `table` gives what was read."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._tables: dict[str, Mapping[str, Object]] = {}

    async def load(self, classes: Iterable[str]) -> None:
        """Read the classes that were not read yet. Raises `ApiError`."""
        for cls in classes:
            if cls not in self._tables:
                self._tables[cls] = await self._api.call(f"{cls}.get_all_records")

    def table(self, cls: str) -> Mapping[str, Object]:
        """The objects of a class that was loaded, by reference."""
        return self._tables[cls]

    def forget(self) -> None:
        """Whatever is asked for next is read anew."""
        self._tables.clear()
