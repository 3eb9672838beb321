"""The README's first session works as printed, on a simulated host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.harness import PASSWORD, InProcessHost, in_process, login
from tests.house.sources import ROOT

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
README = (ROOT / "README.md").read_text()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[InProcessHost]:
    with in_process(tmp_path) as running:
        yield running


def run(code: str, host: InProcessHost, **names: Any) -> dict[str, Any]:
    """Run a block of the README with this host's address and password in the place of the printed ones."""
    here = code.replace("https://127.0.0.1:8443", host.url).replace("the password that was shown", PASSWORD)
    scope = dict(names)
    exec(compile(here, "README.md", "exec"), scope)
    return scope


def test_the_first_session(host: InProcessHost, capsys: pytest.CaptureFixture[str]) -> None:
    code = BLOCK.findall(README)[0]
    assert "https://127.0.0.1:8443" in code
    run(code, host)["session"]("close")()
    printed = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("progress ")]
    assert printed[:2] == ["Running", "success"]
    assert re.fullmatch(r"\d+ machines, templates and snapshots", printed[2])


def test_the_simulators_faults(host: InProcessHost) -> None:
    session = login(host.url)
    api = session.xenapi
    vm = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "slow")
    run(BLOCK.findall(README)[1], host, api=api, vm=vm)
    assert api.VM.get_other_config(vm)["sim:delay-start"] == "3"
    session("close")()
