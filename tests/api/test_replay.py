"""A client that starts empty and applies the event stream always ends up with the server's state.

Several clients write at the same time, through every kind of change; the follower compares whenever they rest.
"""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from tests.api.harness import InProcessHost, login

WRITERS = 3
ROUNDS = 6
CHANGES = 25
CLASSES = {"network": "network", "vdi": "VDI", "vm": "VM", "vbd": "VBD"}

State = dict[str, dict[str, Any]]


def follow(api: Any, state: State, token: str) -> str:
    """Apply events until nothing more comes; gives the new token."""
    while True:
        batch = api.event_from(list(CLASSES), token, 0.2)
        for event in batch["events"]:
            if event["operation"] == "del":
                del state[event["class"]][event["ref"]]
            else:
                assert (event["operation"] == "add") == (event["ref"] not in state[event["class"]])
                state[event["class"]][event["ref"]] = event["snapshot"]
        assert batch["valid_ref_counts"] == {cls: len(objects) for cls, objects in state.items()}
        token = batch["token"]
        if not batch["events"]:
            return str(token)


def at_rest(api: Any, state: State, token: str) -> tuple[str, State]:
    """Follow until nothing changes while all records are read: what was read. The host changes some by itself."""
    while True:
        token = follow(api, state, token)
        records = {cls: getattr(api, spelt).get_all_records() for cls, spelt in CLASSES.items()}
        if not api.event_from(list(CLASSES), token, 0.0)["events"]:
            return token, records


class Writer(threading.Thread):
    """Makes, changes and removes objects at random, with its own seed and its own objects."""

    def __init__(self, url: str, number: int, template: str, sr: str) -> None:
        super().__init__()
        self._api = login(url).xenapi
        self._random = random.Random(number)
        self._template, self._sr = template, sr
        self._networks: list[str] = []
        self._machines: list[str] = []
        self.problems: list[Exception] = []

    def run(self) -> None:
        try:
            for _ in range(CHANGES):
                self._random.choice((self._network, self._rename, self._machine, self._disk, self._remove))()
        except Exception as problem:  # noqa: BLE001 - a thread's failure is shown by the test
            self.problems.append(problem)

    def _network(self) -> None:
        record = {"name_label": "n", "name_description": "", "other_config": {}}
        self._networks.append(self._api.network.create(record))

    def _rename(self) -> None:
        if self._networks:
            self._api.network.set_name_label(self._random.choice(self._networks), str(self._random.random()))

    def _machine(self) -> None:
        self._machines.append(self._api.VM.clone(self._template, "cloned"))

    def _disk(self) -> None:
        """A disk that is attached, which changes the machine's and the disk's derived sets, and taken away again."""
        if not self._machines:
            return
        record = {
            "name_label": "d", "name_description": "", "SR": self._sr, "virtual_size": "1048576", "type": "user",
            "sharable": False, "read_only": False, "other_config": {},
        }  # fmt: skip
        disk = self._api.VDI.create(record)
        attachment = {
            "VM": self._random.choice(self._machines), "VDI": disk, "userdevice": "autodetect", "bootable": False,
            "mode": "RW", "type": "Disk", "empty": False, "other_config": {}, "qos_algorithm_type": "",
            "qos_algorithm_params": {},
        }  # fmt: skip
        self._api.VBD.destroy(self._api.VBD.create(attachment))
        self._api.VDI.destroy(disk)

    def _remove(self) -> None:
        if self._networks and self._random.random() < 0.5:
            self._api.network.destroy(self._networks.pop())
        elif self._machines:
            self._api.VM.destroy(self._machines.pop())


@pytest.mark.slow
def test_the_stream_equals_the_state(host: InProcessHost) -> None:
    api = login(host.url).xenapi
    template = api.VM.get_by_name_label("Tiny Linux")[0]
    sr = api.pool.get_default_SR(api.pool.get_all()[0])
    state: State = {cls: {} for cls in CLASSES}
    token = follow(api, state, "")
    for round_number in range(ROUNDS):
        writers = [Writer(host.url, 100 * round_number + number, template, sr) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        token = follow(api, state, token)
        for writer in writers:
            writer.join(60)
            assert writer.problems == []
        token, records = at_rest(api, state, token)
        assert state == records
