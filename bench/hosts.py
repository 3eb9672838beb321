"""domzero as people run it, on a Unix socket and a free port, and machines on it."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.client import Api
from bench.processes import SERVER_CORE, server

DISK_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Host:
    """A running host."""

    pid: int
    port: str
    socket: Path
    state: Path
    start_seconds: float
    """From its exec until it said that it serves."""

    def api(self) -> Api:
        """A new connection with a session."""
        return Api(self.socket)


@contextlib.contextmanager
def host(
    directory: Path, hypervisor: str = "sim", core: int | None = SERVER_CORE, options: Sequence[str] = ()
) -> Iterator[Host]:
    """`domzero serve` with its state in the directory, until the block ends. `options` are further ones."""
    password, path = directory / "password", directory / "socket"
    password.write_text(secrets.token_urlsafe())
    state = directory / "state"
    begin = time.monotonic()
    with server(
        *("domzero.cli.main", "serve", "--hypervisor", hypervisor, "--https", "127.0.0.1:0", "--socket", path),
        *("--state-dir", state, "--root-password-file", password, "--log-level", "error"),
        *options,
        core=core,
    ) as (pid, url):
        yield Host(pid, url.rpartition(":")[2], path, state, time.monotonic() - begin)


def new_machine(api: Api, name: str, *, cards: int = 0) -> str:
    """A provisioned machine from the small template with its disk, and network cards if asked for.

    The disk is made as small as may be: ten thousand have to fit.
    """
    vm = str(api("VM.clone", api("VM.get_by_name_label", "Tiny Linux")[0], name))
    plan = api("VM.get_other_config", vm)["disks"]
    api("VM.remove_from_other_config", vm, "disks")
    api("VM.add_to_other_config", vm, "disks", re.sub(r'size="\d+"', f'size="{DISK_BYTES}"', plan))
    network = api("network.get_all")[0]
    for card in range(cards):
        fields = {"device": str(card), "network": network, "VM": vm, "MAC": "", "MTU": "1500", "other_config": {}}
        api("VIF.create", {**fields, "qos_algorithm_type": "", "qos_algorithm_params": {}})
    api("VM.provision", vm)
    return vm
