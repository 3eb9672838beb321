"""How fast a machine may send: a token bucket on an intermediate device that the card's packets are led through.

What a machine sends is what its tap receives, and the kernel queues only what leaves a device. So each limited card
`vif1.0` has an `ifb1.0`, whose way out has a token bucket filter (tc-tbf(8)); what comes in at the tap is redirected to
it (tc-mirred(8)) and then goes on as if it had come from the tap. What a machine receives is not limited, as on
XenServer. Blocking work for the network thread.
"""

from __future__ import annotations

from domzero.host.network.links import KernelError, Link, Links

NOT_THERE = (2, 22)
"""ENOENT, EINVAL: what the kernel answers when a queue that is to be removed is none."""

ALREADY_THERE = 17
EVERY_PROTOCOL = 0x0003
INGRESS = 0xFFFF0000
BUCKET = 0x10000
LEAST_BURST = 64 << 10
"""Bytes; as much as one packet may hold before it is segmented."""

BURST_SECONDS = 0.02
QUEUE_SECONDS = 0.1
LARGEST_RATE = 0xFFFFFFFF
"""Bytes a second; what the kernel's older, narrow field holds. Faster is not limited at all."""


def shaper_name(tap: str) -> str:
    """The intermediate device of a tap."""
    return "ifb" + tap.removeprefix("vif")


def limit(links: Links, tap: Link, kilobytes_per_second: int) -> None:
    """Limit what comes in at a tap of ours, from now on; 0 takes the limit away. Raises `NetworkError`."""
    name = shaper_name(tap.name)
    rate = kilobytes_per_second * 1024
    if not 0 < rate <= LARGEST_RATE:
        release(links, tap)
        return
    shaper = links.find(name)
    if shaper is None:
        links.add(name, "ifb")
        shaper = links.need(name)
    links.set(shaper, state="up", mtu=max(tap.mtu, 1500))
    links.ask(
        f"{tap.name} cannot be limited",
        "tc",
        "replace",
        "tbf",
        shaper.index,
        handle=BUCKET,
        rate=rate,
        burst=max(LEAST_BURST, int(rate * BURST_SECONDS)),
        limit=max(4 * LEAST_BURST, int(rate * QUEUE_SECONDS)),
    )
    _redirect(links, tap, shaper)


def release(links: Links, tap: Link) -> None:
    """Take a tap's limit away, if it has one."""
    try:
        links.ask(tap.name, "tc", "del", "ingress", tap.index, handle=INGRESS)
    except KernelError as error:
        if error.code not in NOT_THERE:
            raise
    forget(links, tap.name)


def forget(links: Links, tap: str) -> None:
    """Remove the intermediate device of a tap that is gone itself."""
    shaper = links.find(shaper_name(tap))
    if shaper is not None and shaper.ours and shaper.kind == "ifb":
        links.remove(shaper)


def forget_strays(links: Links) -> None:
    """Remove the intermediate devices whose taps are gone, as when a daemon was killed between the two."""
    present = links.all()
    wanted = {shaper_name(link.name) for link in present if link.ours and link.kind == "tun"}
    for link in present:
        if link.ours and link.kind == "ifb" and link.name not in wanted:
            links.remove(link)


def _redirect(links: Links, tap: Link, shaper: Link) -> None:
    """Lead what comes in at the tap to the device, if it is not yet led there."""
    try:
        links.ask(tap.name, "tc", "add", "ingress", tap.index, handle=INGRESS)
    except KernelError as error:
        if error.code != ALREADY_THERE:
            raise
    if links.ask(tap.name, "get_filters", index=tap.index, parent=INGRESS):
        return
    links.ask(
        f"{tap.name} cannot be limited",
        "tc",
        "add-filter",
        "u32",
        tap.index,
        parent=INGRESS,
        prio=1,
        protocol=EVERY_PROTOCOL,
        target=BUCKET,
        keys=["0x0/0x0+0"],
        action=[{"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": shaper.index}],
    )
