"""Calling the host's plugins: what the toolstack may ask, and what can go wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class PluginMissingError(Exception):
    """There is no plugin of that name."""


class PluginRefusedError(Exception):
    """The plugin answered with an error of the API's kind; `description` is its code and parameters."""

    def __init__(self, description: tuple[str, ...]) -> None:
        super().__init__(*description)
        self.description = description


class PluginFailedError(Exception):
    """The plugin could not be run, or did not end as it should. `status` says so in a few words."""

    def __init__(self, status: str, stdout: str = "", stderr: str = "") -> None:
        super().__init__(status, stdout, stderr)
        self.status = status
        self.stdout = stdout
        self.stderr = stderr


class Plugins(Protocol):
    """Runs plugins."""

    async def call(self, plugin: str, function: str, session: str, arguments: Mapping[str, str]) -> str:
        """Run a function of a plugin and return its text. Name, function and arguments may be anything.

        `session` is a reference by which the plugin may call this host; it may become known to every user of the
        machine. Cancelling the call ends the plugin first. Raises `PluginMissingError`, `PluginRefusedError`,
        `PluginFailedError`.
        """
        ...
