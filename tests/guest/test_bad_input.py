"""Nothing that a host, a kernel or a tool says makes the agent fail in a way that it does not expect."""

from __future__ import annotations

import struct
from typing import Any

from guest.domzero_guest import firewall, netlink, power, processors, report, store, wire
from hypothesis import given
from hypothesis import strategies as st

TEXTS = st.text(alphabet=st.characters(codec="utf-8"), max_size=200)


class Said(store.Stream):
    """A stream on which a host says something without being asked, then goes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.taken: list[bytes] = []

    def read(self, timeout: float) -> bytes:
        piece, self._data = self._data[:100], self._data[100:]
        if not piece:
            raise store.Lost("gone")
        return piece

    def write(self, data: bytes, timeout: float) -> None:
        self.taken.append(data)


MESSAGES = st.builds(
    lambda operation, request, payload, length: (
        struct.pack("=IIII", operation, request, 0, len(payload) if length is None else length) + payload
    ),
    st.sampled_from([wire.READ, wire.WATCH, wire.WATCH_EVENT, wire.ERROR, 0, 2**32 - 1]),
    st.integers(0, 3) | st.integers(0, 2**32 - 1),
    st.binary(max_size=300) | st.sampled_from([b"control/ts\0control/ts\0", b"ENOENT\0", b"\0", b"x"]),
    st.none() | st.integers(0, 2**32 - 1),
)


@given(st.lists(MESSAGES | st.binary(max_size=40), max_size=8).map(b"".join))
def test_whatever_a_host_says(data: bytes) -> None:
    said = Said(data)
    asking = store.Store(said)
    asking._number = 0  # requests have the numbers 1 and 2
    for ask in (lambda: asking.watch("control/ts"), lambda: asking.read("domid"), lambda: asking.children("cpu")):
        try:
            ask()
        except (store.Lost, store.Refused):
            continue
    assert set(asking.changed) <= {"control/ts"}
    assert all(len(request) < 100 for request in said.taken)


@given(st.binary(max_size=200))
def test_whatever_a_kernel_answers(data: bytes) -> None:
    try:
        found, _ = netlink.parsed(data)
    except OSError:
        return
    assert all(isinstance(address.text, str) for address in found)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["input", "filter", "drop", "inet", "a b", "x;y"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["chain", "rule", "name", "table", "family", "hook", "type", "policy", "expr", "handle", "comment"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(st.lists(JSON, max_size=5))
def test_whatever_nft_lists(ruleset: list[Any]) -> None:
    for command in (*firewall.openings(ruleset), *firewall.removals(ruleset)):
        assert command[:1] == ("nft",)
        assert not [word for word in command if ";" in word or " " in word]


@given(TEXTS)
def test_whatever_files_say(text: str) -> None:
    for nodes in (report.system_nodes(text, text), report.memory_nodes(text)):
        assert all(len(value.encode()) <= report.LONGEST for value in nodes.values())
    lines = f"1 1 8:1 / /{text} rw - ext4 /dev/{text} rw"
    volumes = report.volume_nodes((mount, report.Space(1, 1)) for mount in report.mounts(lines))
    assert all(value.isprintable() or not value.isascii() for value in volumes.values())


@given(st.binary(max_size=20), st.integers(0, 1023))
def test_whatever_is_asked_for(value: bytes, allowed: int) -> None:
    asked = power.shutdown(value, systemd=True)
    assert asked is None or value in power.REQUESTS
    key = power.sysrq_key(value, allowed)
    assert key is None or (len(key) == 1 and key.isalnum())
    assert all(0 <= number < 10000 for number in processors.numbers([value.decode("latin-1")]))
