"""Where one daemon keeps its things, made from its settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from domzero import paths
from domzero.settings import Settings


class StartError(Exception):
    """The daemon cannot start; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Places:
    """The directories and files of one daemon."""

    state: Path
    runtime: Path
    socket: Path

    @property
    def log_file(self) -> Path:
        """domzero's own log."""
        return self.state / "log" / "domzero.log"


def places(settings: Settings) -> Places:
    """Where this daemon keeps things; the directories are made, readable by nobody else. Raises `StartError`."""
    state = settings.state_dir or paths.state_dir()
    runtime = settings.runtime_dir or (state / "run" if settings.state_dir else paths.runtime_dir(state))
    chosen = Places(state, runtime, settings.socket or paths.socket_path(runtime))
    try:
        for directory in (chosen.state, chosen.runtime, chosen.log_file.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        chosen.socket.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"{error.filename} cannot be made: {error.strerror}. Choose --state-dir, --runtime-dir or --socket."
        ) from error
    return chosen
