"""The documents about the service and the simulator: their tables are the code's, their examples run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import XenAPI

from tests.api.harness import InProcessHost, in_process, login
from tests.house.sources import ROOT
from tests.service.daemons import PATIENCE, environment
from tests.service.tables import PLACE, TABLES, refreshed

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
SIMULATOR = (ROOT / "docs/simulator.md").read_text()
HOWTO = (ROOT / "docs/howto-test-your-xenapi-program.md").read_text()
SETTINGS = (ROOT / "docs/settings.md").read_text()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessHost]:
    with in_process(tmp_path_factory.mktemp("host")) as running:
        yield running


def test_tables_are_those_of_the_code() -> None:
    found = set()
    for document in ROOT.glob("docs/*.md"):
        text = document.read_text()
        found |= {place[2] for place in PLACE.finditer(text)}
        assert refreshed(text) == text, f"{document.name} is stale: run python -m tests.service.tables"
    assert found == set(TABLES)


def test_no_table_is_empty() -> None:
    for make in TABLES.values():
        assert make().count("\n| `") >= 3


def test_the_faults_that_the_simulators_document_shows(host: InProcessHost) -> None:
    api = login(host.url).xenapi
    vm = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "faulty")
    exec(compile(BLOCK.findall(SIMULATOR)[0], "docs/simulator.md", "exec"), {"api": api, "vm": vm})
    assert {key: value for key, value in api.VM.get_other_config(vm).items() if key.startswith("sim:")} == {
        "sim:delay-start": "2", "sim:fail-save": "the disk is full",
    }  # fmt: skip


def test_faults_of_storage_as_the_document_says(host: InProcessHost) -> None:
    api = login(host.url).xenapi
    config = {"location": "/anywhere", "sim:fail-create": "46 nothing answers"}
    with pytest.raises(XenAPI.Failure) as caught:
        api.SR.create(api.host.get_all()[0], config, "0", "faulty", "", "file", "user", False, {})
    assert caught.value.details[0] == "SR_BACKEND_FAILURE_46"
    assert "nothing answers" in caught.value.details


def test_a_role_for_somebody_whom_pam_knows(host: InProcessHost) -> None:
    api = login(host.url).xenapi
    (block,) = BLOCK.findall(SETTINGS)
    exec(compile(block, "docs/settings.md", "exec"), {"api": api})
    (anna,) = (row for row in api.subject.get_all_records().values() if row["subject_identifier"] == "anna")
    assert anna["roles"] == api.role.get_by_name_label("vm-admin")


@pytest.mark.slow
def test_the_clock_and_single_step(host: InProcessHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    api = login(host.url).xenapi
    vm = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "stepwise")
    api.VM.provision(vm)
    scope = {"api": api, "vm": vm, "socket": str(host.settings.state_dir / "run/xapi")}
    exec(compile(BLOCK.findall(SIMULATOR)[1], "docs/simulator.md", "exec"), scope)
    token = api.event_from(["vm"], "", 0.0)["token"]
    while api.VM.get_power_state(vm) != "Running":
        token = api.event_from(["vm"], token, 5.0)["token"]


@pytest.mark.slow
def test_the_pytest_example_runs(tmp_path: Path) -> None:
    fixtures, tests = BLOCK.findall(HOWTO)
    (tmp_path / "conftest.py").write_text(fixtures)
    (tmp_path / "test_program.py").write_text(tests)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "error"],
        cwd=tmp_path, env=environment(PATH=path), capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{tests.count('def test_')} passed" in ended.stdout
