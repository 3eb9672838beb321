"""An Open vSwitch of its own in a network namespace, with the user-space datapath: needs no module of the kernel."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
PATIENCE = 20.0


@contextmanager
def switch_in(namespace: Path, directory: Path) -> Iterator[Path]:
    """A running switch; the directory of its sockets."""
    directory.mkdir()
    database = directory / "conf.db"
    subprocess.run(["ovsdb-tool", "create", database, SCHEMA], check=True)
    environment = {"OVS_RUNDIR": str(directory), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    server = subprocess.Popen(
        ["ovsdb-server", database, f"--remote=punix:{directory / 'db.sock'}", f"--log-file={directory / 'server.log'}"],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    switch = None
    try:
        wait_for(directory / "db.sock")
        control = ["ovs-vsctl", f"--db=unix:{directory / 'db.sock'}", "--no-wait", "init"]
        subprocess.run(control, check=True, timeout=PATIENCE)
        inside = ["nsenter", f"--net={namespace}"]
        switch = subprocess.Popen(
            [*inside, "ovs-vswitchd", f"unix:{directory / 'db.sock'}", f"--log-file={directory / 'switch.log'}"],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        ready = ["ovs-vsctl", f"--db=unix:{directory / 'db.sock'}", "--timeout=20", "set", "Open_vSwitch", "."]
        subprocess.run([*ready, "external_ids:system-id=test"], check=True, timeout=PATIENCE)
        yield directory
    finally:
        for child in filter(None, (switch, server)):
            child.terminate()
            child.wait(PATIENCE)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)
