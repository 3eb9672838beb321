"""Objects made out of fields on the command line, and all that is known of one."""

from __future__ import annotations

import pytest

from tests.api.harness import InProcessHost
from tests.xe.terminal import printed, refused


@pytest.mark.parametrize(
    ("kind", "given", "shown"),
    [
        ("vmss", ("name-label=nightly", "type=snapshot", "frequency=daily", "schedule:hour=3", "retained-snapshots=5"),
         {"name-label": "nightly", "frequency": "daily", "enabled": "true", "schedule": "hour: 3",
          "retained-snapshots": "5"}),
        ("observer", ("name-label=traces", "components=xapi,xenopsd", "attributes:who=me"),
         {"name-label": "traces", "components": "xapi; xenopsd", "attributes": "who: me", "enabled": "false",
          "endpoints": "bugtool"}),
    ],
)  # fmt: skip
def test_made_shown_and_gone(host: InProcessHost, kind: str, given: tuple[str, ...], shown: dict[str, str]) -> None:
    uuid = printed(host, f"{kind}-create", *given).strip()
    for name, value in shown.items():
        assert printed(host, f"{kind}-param-get", f"uuid={uuid}", f"param-name={name}") == f"{value}\n"
    assert printed(host, f"{kind}-list", "--minimal") == f"{uuid}\n"
    printed(host, f"{kind}-destroy", f"uuid={uuid}")
    assert printed(host, f"{kind}-list", "--minimal") == "\n"


def test_words_that_a_field_cannot_have(host: InProcessHost) -> None:
    said = refused(host, "vmss-create", "name-label=x", "type=snapshot", "frequency=sometimes")
    assert "frequency" in said
    assert "daily" in said
    assert printed(host, "vmss-list", "--minimal") == "\n"


def test_a_store_for_streams(host: InProcessHost) -> None:
    repository = printed(host, "sr-list", "type=file", "--minimal").strip()
    site = printed(host, "pvs-site-list", "--minimal")
    assert site == "\n"
    said = refused(host, "pvs-cache-storage-create", f"sr-uuid={repository}", "pvs-site-uuid=nothing", "size=1GiB")
    assert "nothing" in said


def test_features_of_processors(host: InProcessHost) -> None:
    uuid = printed(host, "host-list", "--minimal").strip()
    features = printed(host, "host-get-cpu-features")
    assert features == printed(host, "host-get-cpu-features", f"uuid={uuid}") == printed(host, "pool-get-cpu-features")


def test_all_about_a_machine_and_its_disk(host: InProcessHost, machine: str) -> None:
    disk = printed(host, "vbd-list", f"vm-uuid={machine}", "type=Disk", "params=vdi-uuid", "--minimal").strip()
    drive = printed(host, "vbd-list", f"vm-uuid={machine}", "type=Disk", "--minimal").strip()
    told = printed(host, "diagnostic-vm-status", f"uuid={machine}")
    assert told.count("\n\n\n") == 2
    for part in (f": {machine}\n", "power-state ( RO): halted\n", f": {drive}\n", f": {disk}\n"):
        assert part in told
    assert f": {disk}\n" in printed(host, "diagnostic-vdi-status", f"uuid={disk}").partition("\n\n\n")[0]
    assert printed(host, "diagnostic-vdi-status", f"uuid={disk}", "--minimal") == f"{disk},{drive}\n"
