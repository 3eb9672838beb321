"""Installation repositories with the layout of each family, and a server for them on loopback."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Files = dict[str, bytes]

BOOT_HEADER = bytes(0x1FE) + b"\x55\xaa\0\0HdrS"
"""What a Linux kernel begins with, as far as anybody here looks."""

ASKED: Mapping[str, Mapping[str, str]] = {
    "debian": {"install-distro": "debianlike", "debian-release": "bookworm"},
    "ubuntu": {"install-distro": "ubuntulike", "debian-release": "focal"},
    "ubuntu-22": {"install-distro": "ubuntulike"},
    "red-hat-4": {"install-distro": "rhel44"},
    "red-hat": {"install-distro": "rhlike"},
    "centos": {"install-distro": "centoslike"},
    "suse": {"install-distro": "sleslike"},
    "suse-9": {"install-distro": "sleslike"},
}
"""Layout → what a machine says in other_config to be installed from it."""

_DEBIAN = "dists/bookworm/main/installer-amd64/current/images/"
_UBUNTU = "dists/focal/main/installer-amd64/current/legacy-images/"
_RED_HAT = ("images/pxeboot/vmlinuz", "images/pxeboot/initrd.img")
PLACES: Mapping[str, tuple[str, str]] = {
    "debian": (
        f"{_DEBIAN}netboot/debian-installer/amd64/linux",
        f"{_DEBIAN}netboot/debian-installer/amd64/initrd.gz",
    ),
    "ubuntu": (
        f"{_UBUNTU}netboot/ubuntu-installer/amd64/linux",
        f"{_UBUNTU}netboot/ubuntu-installer/amd64/initrd.gz",
    ),
    "ubuntu-22": ("amd64/linux", "amd64/initrd"),
    "red-hat-4": _RED_HAT,
    "red-hat": _RED_HAT,
    "centos": _RED_HAT,
    "suse": ("boot/x86_64/loader/linux", "boot/x86_64/loader/initrd"),
    "suse-9": ("boot/loader/linux", "boot/loader/initrd"),
}
"""Layout → where its kernel and RAM disk are."""


def repository(layout: str, kernel: bytes, ramdisk: bytes) -> Files:
    """What such a repository holds, with the checksums that it publishes."""
    places = PLACES[layout]
    files = dict(zip(places, (kernel, ramdisk), strict=True))
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    if layout in ("debian", "ubuntu"):
        below = _DEBIAN if layout == "debian" else _UBUNTU
        rows = (f"{digest}  ./{path.removeprefix(below)}\n" for path, digest in digests.items())
        files[f"{below}SHA256SUMS"] = "".join(rows).encode()
    elif layout in ("red-hat", "centos"):
        rows = (f"{path} = sha256:{digest}\n" for path, digest in digests.items())
        files[".treeinfo"] = f"[general]\nfamily = Linux\n\n[checksums]\n{''.join(rows)}".encode()
    elif layout == "suse":
        files["CHECKSUMS"] = "".join(f"{digest}  {path}\n" for path, digest in digests.items()).encode()
    return files


@contextmanager
def served(files: Mapping[str, bytes], address: str = "127.0.0.1") -> Iterator[tuple[str, list[str]]]:
    """A web server for the files: its address, and the paths that were asked for so far."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            asked.append(path)
            body = files.get(path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_about: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer((address, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://{address}:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join(10)
