"""Clients that wait for events, in a process of their own: `python -m bench.subscribers SOCKET COUNT CHANGES`.

Each has a connection of its own and calls `event.from` for VMs again and again. One more connection changes a machine's
description, once everybody waits; the description says when the change was called for. Prints the seconds from then
until each subscriber had the event, as a JSON list. With CHANGES 0 the clients wait until standard input ends.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from pathlib import Path

from bench.client import Api, request
from bench.load import Exchange

DESCRIPTION = re.compile(rb"<name>name_description</name><value>at ([0-9]+)</value>")
TOKEN = re.compile(rb"<name>token</name><value>([0-9,]+)</value>")
PATIENCE = 30.0
SETTLE = 0.02
"""Seconds between changes: subscribers come back within a few milliseconds, and what is measured is an idle host's."""


class Subscriber(Exchange):
    """One client and its place in the stream of events."""

    def __init__(self, path: Path, session: str, token: str) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        super().__init__(connection, b"", [])
        self.session = session
        self.wait_from(token)

    def wait_from(self, token: str) -> None:
        """Ask for what happens after the token."""
        self.request = request("event.from", self.session, ["vm"], token, 600.0)
        self.send()


def subscribe(path: Path, api: Api, count: int) -> list[Subscriber]:
    """That many clients, all waiting."""
    token = str(api("event.from", ["vm"], "", 0.0)["token"])
    return [Subscriber(path, api.session, token) for _ in range(count)]


def measure(api: Api, machine: str, subscribers: list[Subscriber], changes: int) -> list[float]:
    """The seconds of every delivery."""
    waiting = select.epoll()
    by_number = {subscriber.connection.fileno(): subscriber for subscriber in subscribers}
    for number in by_number:
        waiting.register(number, select.EPOLLIN)
    seconds: list[float] = []
    for _ in range(changes):
        time.sleep(SETTLE)
        called = time.perf_counter_ns()
        api("VM.set_name_description", machine, f"at {called}")
        left = set(by_number)
        while left:
            ready = waiting.poll(PATIENCE)
            if not ready:
                raise TimeoutError("an event did not come")
            for number, _ in ready:
                if receive(by_number[number], called, seconds):
                    left.discard(number)
    return seconds


def receive(subscriber: Subscriber, called: int, seconds: list[float]) -> bool:
    """Take an answer and go on waiting; whether it told of the change that was called for at that moment."""
    body = subscriber.take()
    if body is None:
        return False
    arrived = time.perf_counter_ns()
    found, token = DESCRIPTION.search(body), TOKEN.search(body)
    assert token is not None, body[:500]
    subscriber.wait_from(token[1].decode())
    if found is None or int(found[1]) != called:
        return False
    seconds.append((arrived - called) / 1e9)
    return True


def main() -> None:
    """See the module."""
    path, count, changes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    api = Api(path)
    machine = str(api("VM.get_by_name_label", "watched")[0])
    subscribers = subscribe(path, api, count)
    if changes:
        json.dump(measure(api, machine, subscribers, changes), sys.stdout)
    else:
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
