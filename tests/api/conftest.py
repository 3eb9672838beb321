"""The fixture ladder: host → session → repository → machine, on the simulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.harness import InProcessHost, in_process, login


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessHost]:
    directory: Path = tmp_path_factory.mktemp("host")
    with in_process(directory) as running:
        yield running


@pytest.fixture
def session(host: InProcessHost) -> Iterator[Any]:
    session = login(host.url)
    yield session
    session.xenapi.session.logout()


@pytest.fixture
def api(session: Any) -> Any:
    return session.xenapi


@pytest.fixture
def template(api: Any) -> Any:
    """The small template that boots anywhere."""
    return api.VM.get_by_name_label("Tiny Linux")[0]


@pytest.fixture
def machine(api: Any, template: Any) -> Iterator[Any]:
    """A provisioned, halted machine with one disk; removed afterwards, disks included."""
    vm = api.VM.clone(template, "a machine")
    api.VM.provision(vm)
    yield vm
    if vm not in api.VM.get_all():
        return
    if api.VM.get_power_state(vm) != "Halted":
        api.VM.hard_shutdown(vm)
    disks = [api.VBD.get_VDI(vbd) for vbd in api.VM.get_VBDs(vm) if api.VBD.get_type(vbd) == "Disk"]
    api.VM.destroy(vm)
    for disk in disks:
        api.VDI.destroy(disk)
