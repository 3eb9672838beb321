"""Runs a private libvirtd and measures it. Needs Debian's python3-libvirt; imports nothing of domzero.

Started as process 1 of its own process namespace (`unshare --pid --mount --mount-proc`), with a directory to keep
everything in: it forks, reaps orphans as an init does, and its child serves. Requests are lines of JSON on standard
input, `{"operation": NAME, …}`; each is answered by one line on standard output. When its input ends all of it goes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt

PLACES = ("/etc/libvirt", "/run", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt")
DAEMON_SETTINGS = """\
unix_sock_group = "root"
auth_unix_ro = "none"
auth_unix_rw = "none"
max_clients = 200
max_anonymous_clients = 200
host_uuid = "6e6f7465-6269-4e6b-8a65-2d6f6e6c7900"
"""
DRIVER_SETTINGS = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
stdio_handler = "file"
namespaces = []
remember_owner = 0
"""
DOMAIN = """\
<domain type='qemu'><name>{name}</name><memory unit='KiB'>{kib}</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><initrd>{ramdisk}</initrd>
<cmdline>{arguments}</cmdline></os><features><acpi/><apic/></features><cpu mode='maximum'/>
<on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
<target dev='vda' bus='virtio'/></disk>
<serial type='file'><source path='{serial}'/></serial><memballoon model='virtio'/></devices></domain>
"""
INACTIVE = """\
<domain type='qemu'><name>asked</name><uuid>6e6f7465-6269-4e6b-8a65-2d6f6e6c7901</uuid>
<memory unit='KiB'>262144</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>
"""
STARTING_SECONDS = 30.0


class Peer:
    """A daemon and what is asked of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._address = ""
        self._connection: Any = None
        self._daemon = self._start_daemon()

    def stop(self) -> None:
        """End every guest and the daemon."""
        for domain in self._connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            domain.destroy()
        self._daemon.terminate()
        self._daemon.wait(20)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request."""
        operation: Callable[..., dict[str, Any]] = getattr(self, "do_" + request.pop("operation"))
        return operation(**request)

    def do_ready(self) -> dict[str, Any]:
        return {"version": libvirt.getVersion()}

    def do_info_load(self, connections: int, seconds: float) -> dict[str, Any]:
        """`dom.info()` of a machine that does not run, which asks QEMU nothing: calls per second."""
        self._connection.defineXML(INACTIVE)
        self._pin()
        domains = [libvirt.open(self._address).lookupByName("asked") for _ in range(connections)]
        times: list[list[float]] = [[] for _ in domains]
        stop = time.monotonic() + seconds

        def ask(domain: Any, mine: list[float]) -> None:
            while time.monotonic() < stop:
                begin = time.perf_counter()
                domain.info()
                mine.append(time.perf_counter() - begin)

        threads = [threading.Thread(target=ask, args=pair) for pair in zip(domains, times, strict=True)]
        begin, used = time.monotonic(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed, used = time.monotonic() - begin, time.process_time() - used
        every = sorted(value for mine in times for value in mine)
        return {
            "rate": len(every) / elapsed,
            "median": every[len(every) // 2],
            "p99": every[len(every) * 99 // 100],
            "own_part": used / elapsed,
            "count": len(every),
        }

    def do_define(self, name: str, **machine: Any) -> dict[str, Any]:
        """A guest with one disk: see `DOMAIN` for what it needs."""
        self._connection.defineXML(DOMAIN.format(name=name, **machine))
        return {}

    def do_step(self, name: str, step: str, said: str, limit: float) -> dict[str, Any]:
        """One step of a guest's life: its seconds. `up` waits until its serial line has said something."""
        domain = self._connection.lookupByName(name)
        steps: dict[str, Callable[[], object]] = {
            "start": domain.create,
            "up": lambda: wait_for(serial_log(domain), said.encode(), limit),
            "pause": domain.suspend,
            "unpause": domain.resume,
            "suspend": domain.managedSave,
            "resume": domain.create,
            "hard_shutdown": domain.destroy,
        }
        return {"seconds": timed(steps[step])}

    def do_start_all(self, names: list[str]) -> dict[str, Any]:
        """Start guests all at once, each from a thread: seconds until the last runs. They are destroyed afterwards."""
        domains = [libvirt.open(self._address).lookupByName(name) for name in names]
        threads = [threading.Thread(target=domain.create) for domain in domains]
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed = time.monotonic() - begin
        for domain in domains:
            domain.destroy()
        return {"seconds": elapsed}

    def _pin(self) -> None:
        """Keep the daemon on one processor and this process on another, as other servers and loads are."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            for thread in Path(f"/proc/{self._daemon.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {cores[0]})
            os.sched_setaffinity(0, {cores[1]})

    def _start_daemon(self) -> subprocess.Popen[bytes]:
        for place in PLACES:
            mine = self._directory / place.strip("/").replace("/", "-")
            mine.mkdir()
            subprocess.run(["mount", "--bind", str(mine), place], check=True)
        Path("/etc/libvirt/libvirtd.conf").write_text(DAEMON_SETTINGS)
        Path("/etc/libvirt/qemu.conf").write_text(DRIVER_SETTINGS)
        log = (self._directory / "libvirtd.log").open("wb")
        daemon = subprocess.Popen(["/usr/sbin/libvirtd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._address = "qemu:///system?socket=/run/libvirt/libvirt-sock"
        deadline = time.monotonic() + STARTING_SECONDS
        while self._connection is None:
            try:
                self._connection = libvirt.open(self._address)
            except libvirt.libvirtError:
                if time.monotonic() > deadline or daemon.poll() is not None:
                    raise
                time.sleep(0.05)
        return daemon


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def serial_log(domain: Any) -> Path:
    """Where the serial line of a domain goes."""
    return Path(domain.XMLDesc().partition("<source path='")[2].partition("'")[0])


def wait_for(log: Path, said: bytes, limit: float) -> None:
    """Return when a growing file holds some bytes. Raises `TimeoutError`."""
    deadline = time.monotonic() + limit
    while said not in log.read_bytes():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{log.name}: no {said!r}")
        time.sleep(0.01)


def serve(directory: Path) -> None:
    """Answer requests until there are no more."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    peer = Peer(directory)
    try:
        for line in sys.stdin:
            try:
                answer = peer.answer(json.loads(line))
            except Exception as problem:  # noqa: BLE001 - told to whoever asked
                answer = {"error": f"{type(problem).__name__}: {problem}"}
            print(json.dumps(answer), flush=True)
    finally:
        peer.stop()


def main() -> None:
    """Fork: the child serves; process 1 reaps every orphan, and everything ends with the child."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        serve(Path(sys.argv[1]))
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ended = 0
    while ended != child:
        ended, _ = os.wait()


if __name__ == "__main__":
    main()
