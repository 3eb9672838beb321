"""Plugins from one directory of the host."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from signal import Signals

from domzero.finish import in_thread
from domzero.host.plugins.protocol import PluginFailedError, PluginMissingError
from domzero.host.plugins.requests import AnswerError, answer, request
from domzero.host.plugins.safety import UnsafeError, find
from domzero.host.process import Ended, ProcessError, run_leader

TIME_LIMIT = 3600.0
"""Seconds that a plugin may take."""
QUOTED = 65536
"""Bytes of each stream that an error repeats: the last ones."""
LIBRARY = Path(__file__).with_name("library")
"""Where plugins in Python find `XenAPIPlugin` and `XenAPI`."""

log = logging.getLogger(__name__)


class PluginDirectory:
    """Runs the executable files of a directory, which need not exist.

    A plugin runs with this process's rights, in the root directory, without standard input, with an environment of
    few variables: among them PYTHONPATH for `LIBRARY`, and DOMZERO_SOCKET, the Unix socket of this host's API.
    """

    def __init__(self, directory: Path, socket: Path, time_limit: float = TIME_LIMIT) -> None:
        self._directory = directory
        self._environment = {"PYTHONPATH": str(LIBRARY), "DOMZERO_SOCKET": str(socket)}
        self._time_limit = time_limit

    async def call(self, plugin: str, function: str, session: str, arguments: Mapping[str, str]) -> str:
        """See `Plugins`."""
        program = await in_thread(self._find, plugin)
        try:
            ended = await run_leader(
                [program, request(function, session, arguments)],
                timeout=self._time_limit, environment=self._environment, directory=Path("/"),
            )  # fmt: skip
        except ProcessError as error:
            raise PluginFailedError("not started", "", str(error)) from error
        if ended.trouble:
            raise _failed(ended.trouble, ended)
        if ended.returncode < 0:
            raise _failed(f"signal: {_signal(-ended.returncode)}", ended)
        if ended.returncode > 0:
            raise _failed("non-zero exit", ended)
        try:
            return answer(ended.stdout)
        except AnswerError as error:
            raise _failed(str(error), ended) from error

    def _find(self, name: str) -> Path:
        try:
            program = find(self._directory, name)
        except UnsafeError as error:
            log.warning("the plugin %s is not run: %s", name, error)
            raise PluginFailedError("not started", "", str(error)) from error
        if program is None:
            raise PluginMissingError(name)
        return program


def _failed(status: str, ended: Ended) -> PluginFailedError:
    return PluginFailedError(status, _quoted(ended.stdout), _quoted(ended.stderr))


def _quoted(said: bytes) -> str:
    return said[-QUOTED:].decode(errors="replace")


def _signal(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return str(number)
