"""An Open vSwitch of its own in a network namespace, with the user-space datapath: needs no module of the kernel."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
PATIENCE = 20.0


class TestSwitch:
    """A switch, whose process can be ended and started again. `directory` is that of its sockets."""

    __test__ = False

    def __init__(self, namespace: Path, directory: Path) -> None:
        self.directory = directory
        self._namespace = namespace
        self._address = f"unix:{directory / 'db.sock'}"
        self._server: subprocess.Popen[bytes] | None = None
        self._switch: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Start the database, new and empty, and the switch."""
        self.directory.mkdir()
        database = self.directory / "conf.db"
        subprocess.run(["ovsdb-tool", "create", database, SCHEMA], check=True)
        self._server = self._start("ovsdb-server", str(database), f"--remote=p{self._address}")
        wait_for(self.directory / "db.sock")
        self.control("--no-wait", "init")
        self.start()

    def close(self) -> None:
        self.stop()
        if self._server is not None:
            self._server.terminate()
            self._server.wait(PATIENCE)

    def launch(self) -> None:
        """Start the switch and return at once."""
        self._switch = self._start("nsenter", f"--net={self._namespace}", "ovs-vswitchd", self._address)

    def start(self) -> None:
        """Start the switch, and wait until it has read what the database asks of it."""
        self.launch()
        self.control("set", "Open_vSwitch", ".", f"external_ids:system-id={time.monotonic()}")

    def stop(self, *, cleanup: bool = False) -> None:
        """End the switch's process, its database stays: at once, or so that the bridges' interfaces go with it."""
        if self._switch is None:
            return
        if cleanup:
            socket = self.directory / f"ovs-vswitchd.{self._switch.pid}.ctl"
            subprocess.run(["ovs-appctl", "--target", socket, "exit", "--cleanup"], check=True, timeout=PATIENCE)
        else:
            self._switch.kill()
        self._switch.wait(PATIENCE)
        self._switch = None

    def control(self, *words: str) -> str:
        """What ovs-vsctl(8) says."""
        argv = ["ovs-vsctl", f"--db={self._address}", "--timeout=20", *words]
        return subprocess.run(argv, check=True, timeout=PATIENCE + 5, stdout=subprocess.PIPE, text=True).stdout

    def flows(self, bridge: str) -> list[str]:
        """The bridge's flows, without what changes by itself."""
        argv = ["ovs-ofctl", "-O", "OpenFlow15", "--no-stats", "dump-flows", f"unix:{self.directory}/{bridge}.mgmt"]
        said = subprocess.run(argv, check=True, timeout=PATIENCE, stdout=subprocess.PIPE, text=True).stdout
        return sorted(line.strip() for line in said.splitlines() if "actions=" in line)

    def _start(self, *argv: str) -> subprocess.Popen[bytes]:
        environment = {"OVS_RUNDIR": str(self.directory), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(argv, env=environment, stdout=log, stderr=log)


@contextmanager
def switch_in(namespace: Path, directory: Path) -> Iterator[TestSwitch]:
    """A running switch, ended at last."""
    switch = TestSwitch(namespace, directory)
    try:
        switch.open()
        yield switch
    finally:
        switch.close()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)
