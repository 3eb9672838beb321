"""The program of one text screen: it shuts itself in, then shows what a guest writes to those whose connections it is
handed. Started by `terminals`, with the numbers of its two sockets; see there.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
from pathlib import Path

from domzero.finish import until_one_ends
from domzero.host.confinement import Confinement, ConfinementError, enter
from domzero.host.console.glyphs import glyph
from domzero.host.console.line import PIECE, SocketLine
from domzero.host.console.terminals import MESSAGE, READY, SENT_AHEAD, Order
from domzero.host.console.text_screen import TextScreen, TextViewer
from domzero.host.descriptors import ready

LIMITS = {
    resource.RLIMIT_AS: 512 << 20,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NOFILE: 64,
    resource.RLIMIT_NPROC: 0,
    resource.RLIMIT_MEMLOCK: 0,
}
"""A terminal, a font and sixteen viewers take a tenth of that."""

SYSTEM_CALLS = (
    "brk", "clock_gettime", "clock_nanosleep", "close", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "exit", "exit_group", "fcntl", "futex", "getpeername", "getpid", "getrandom", "getsockname", "getsockopt",
    "gettid", "gettimeofday", "ioctl", "madvise", "mmap", "mremap", "munmap", "nanosleep", "poll", "ppoll", "read",
    "recvfrom", "recvmsg", "restart_syscall", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_yield",
    "sendmsg", "sendto", "shutdown", "sigaltstack", "write", "writev",
)  # fmt: skip
"""What the event loop does with sockets that are there already, and what memory takes. Nothing opens, connects,
starts, signals or looks at anything."""


def main() -> None:
    """Run until the other side closes."""
    serial, control = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    order = Order.parse(control.recv(MESSAGE))
    asyncio.run(_serve(order, serial, control))


async def _serve(order: Order, serial: socket.socket, control: socket.socket) -> None:
    line = SocketLine(*await asyncio.open_unix_connection(sock=serial, limit=SENT_AHEAD))
    screen = TextScreen(line, order.title, order.past)
    # A font cannot be opened, and a module not be found, any more afterwards.
    glyph("A")
    control.setblocking(False)
    try:
        _shut_in(order)
    except ConfinementError as error:
        control.send(str(error).encode()[:MESSAGE])
        return
    control.send(READY)
    viewers: set[asyncio.Task[None]] = set()
    while (handed := await _handed(control)) is not None:
        viewer = asyncio.create_task(_carry(screen.join(), handed))
        viewers.add(viewer)
        viewer.add_done_callback(viewers.discard)
    screen.close()
    for viewer in viewers:
        viewer.cancel()


def _shut_in(order: Order) -> None:
    if order.directory is not None:
        enter(Confinement(Path(order.directory), order.user), LIMITS, SYSTEM_CALLS)


async def _handed(control: socket.socket) -> socket.socket | None:
    """The next viewer's connection; None when there will be no more."""
    await ready(control.fileno())
    message, descriptors, _, _ = socket.recv_fds(control, MESSAGE, 1)
    return socket.socket(fileno=descriptors[0]) if message and descriptors else None


async def _carry(viewer: TextViewer, connection: socket.socket) -> None:
    """Between a viewer's connection and what it is shown, until one of them ends."""
    line = SocketLine(*await asyncio.open_unix_connection(sock=connection, limit=PIECE))
    try:
        await until_one_ends(_copy(viewer, line), _copy(line, viewer))
    finally:
        viewer.close()
        line.close()


async def _copy(source: TextViewer | SocketLine, target: TextViewer | SocketLine) -> None:
    while data := await source.read():
        await target.write(data)


if __name__ == "__main__":
    main()
