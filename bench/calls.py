"""Calls per second over connections that stay open: the API against a bare echo, the standard library and libvirt."""

from __future__ import annotations

import json
import statistics
import tempfile
import xmlrpc.client
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import libvirt_host
from bench.client import HEAD, Api
from bench.hosts import Host, host, new_machine
from bench.load import Load
from bench.processes import output, processor_seconds, server
from bench.report import Row, Section, Target, number, spread

NOTES = """One server process on one processor, the load on another; requests as `xmlrpc.client` makes them. The echo of
calls is asyncio with a bare protocol, llhttp and this project's codec, with no API behind it; the echo of bytes does
not even look at what it is sent, and shows the floor. Both answer with as many bytes as the API does. `get_record` is
of a machine with a disk and a network card. libvirt answers `dom.info()` to as many connections of its own Python
binding, over its Unix socket, pinned to the same processors. Beside each rate: the median of a call, processor time of
the server for a call, and how much of its processor the load used, lest it be the limit."""

CONNECTIONS = (1, 4, 32)
ECHO, STDLIB, LIBVIRT = Target(least=0.6), Target(least=1.0), Target(least=1.0)


@dataclass(frozen=True, slots=True)
class Listening:
    """A server's socket's path or its port, and its process where that has one thread."""

    target: str
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A load and what it cost the server: seconds of its processor for each call, where that is known."""

    load: Load
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Door:
    """One way in, to each of the servers."""

    name: str
    api: Listening
    calls: Listening
    bytes: Listening
    stdlib: Listening


@dataclass(frozen=True, slots=True)
class Question:
    """A call, as bytes to the API and as bytes to the echo."""

    method: str
    call: Path
    echo: Path


def measure(quick: bool) -> Section:
    """Three calls, two doors, several numbers of connections."""
    section = Section("Calls", NOTES)
    seconds, rounds = (0.3, 1) if quick else (0.6, 5)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        ours = stack.enter_context(host(directory))
        questions, answers = _questions(ours.api(), directory)
        (directory / "answers").write_text(json.dumps(answers))
        doors = _doors(stack, ours, directory)
        for door in doors:
            for connections in CONNECTIONS:
                for question in questions:
                    _compare(section, door, connections, question, seconds, rounds)
        _against_libvirt(section, doors[0], questions, seconds, rounds)
    return section


def _questions(api: Api, directory: Path) -> tuple[list[Question], Mapping[str, object]]:
    vm = new_machine(api, "asked about", cards=1)
    answers, questions = {}, []
    for method, ref in (("VM.get_record", vm), ("VM.get_power_state", vm), ("session.get_uuid", api.session)):
        body = xmlrpc.client.dumps((api.session, ref), method).encode()
        call = f"{HEAD}{len(body)}\r\n\r\n".encode() + body
        size = len(api.exchange(call))
        head = HEAD.replace("POST /", f"POST /{size}")
        question = Question(method, directory / method, directory / f"{method}-echo")
        question.call.write_bytes(call)
        question.echo.write_bytes(f"{head}{len(body)}\r\n\r\n".encode() + body)
        questions.append(question)
        answers[method] = api(method, ref)
    return questions, answers


def _doors(stack: ExitStack, ours: Host, directory: Path) -> tuple[Door, ...]:
    echo, stdlib = directory / "echo", directory / "stdlib"
    echo.mkdir()
    stdlib.mkdir()
    echo_pid, echo_ports = stack.enter_context(server("bench.echo", echo))
    calls_port, bytes_port = reversed(echo_ports.split())
    _, stdlib_port = stack.enter_context(
        server("bench.stdlib_server", stdlib / "socket", stdlib, directory / "answers")
    )
    return (
        Door(
            "Unix",
            Listening(str(ours.socket), ours.pid),
            Listening(str(echo / "calls"), echo_pid),
            Listening(str(echo / "bytes"), echo_pid),
            Listening(str(stdlib / "socket")),
        ),
        Door(
            "TLS",
            Listening(ours.port, ours.pid),
            Listening(calls_port, echo_pid),
            Listening(bytes_port, echo_pid),
            Listening(stdlib_port),
        ),
    )


def _load(to: Listening, content: Path, connections: int, seconds: float) -> Result:
    before = processor_seconds(to.pid) if to.pid else 0.0
    load = Load(**json.loads(output("bench.load", to.target, content, str(connections), str(seconds))))
    return Result(load, (processor_seconds(to.pid) - before) / load.count if to.pid else None)


def _in_turn(rounds: int, *loads: Callable[[], Result]) -> list[list[Result]]:
    """Each load's results, measured alternately."""
    measured = [[load() for load in loads] for _ in range(rounds)]
    return [list(of_one) for of_one in zip(*measured, strict=True)]


def _ratio(ours: list[Result], theirs: list[Result]) -> float:
    return statistics.median(a.load.rate / b.load.rate for a, b in zip(ours, theirs, strict=True))


def _rate(results: list[Result]) -> str:
    """Calls per second; the median of a call; what it cost the server; how busy the load was, lest it be the limit."""
    latency = statistics.median(result.load.median for result in results)
    said = f"{spread([result.load.rate for result in results]).text('/s')}, {number(latency * 1e6)} µs"
    costs = [result.cost for result in results if result.cost is not None]
    if costs:
        said += f", server {number(statistics.median(costs) * 1e6)} µs"
    return f"{said}, load {max(result.load.own_part for result in results):.0%}"


def _compare(section: Section, door: Door, connections: int, question: Question, seconds: float, rounds: int) -> None:
    ours, calls, floor, stdlib = _in_turn(
        rounds,
        lambda: _load(door.api, question.call, connections, seconds),
        lambda: _load(door.calls, question.echo, connections, seconds),
        lambda: _load(door.bytes, question.echo, connections, seconds),
        lambda: _load(door.stdlib, question.call, connections, seconds),
    )
    what = f"{question.method}, {door.name}, {connections} connection{'s' * (connections > 1)}"
    section.add(Row(f"{what}, to a bare echo of calls", _ratio(ours, calls), _rate(ours), _rate(calls), ECHO))
    section.add(Row(f"{what}, to a bare echo of bytes", _ratio(ours, floor), _rate(ours), _rate(floor)))
    section.add(Row(f"{what}, to xmlrpc.server", _ratio(ours, stdlib), _rate(ours), _rate(stdlib), STDLIB))


def _against_libvirt(section: Section, door: Door, questions: list[Question], seconds: float, rounds: int) -> None:
    asked = [question for question in questions if question.method != "session.get_uuid"]
    with libvirt_host.peer() as peer:
        for connections in CONNECTIONS:
            for question in asked:
                what = f"{question.method}, Unix, {connections} connection{'s' * (connections > 1)}, to dom.info()"
                if peer is None:
                    section.add(Row(what, None, "", libvirt_host.MISSING, LIBVIRT))
                    continue
                ours, theirs = _in_turn(
                    rounds,
                    lambda connections=connections, question=question: _load(  # type: ignore[misc]  # bound early
                        door.api, question.call, connections, seconds
                    ),
                    lambda connections=connections: Result(  # type: ignore[misc]  # bound early
                        Load(**peer.ask("info_load", connections=connections, seconds=seconds))
                    ),
                )
                section.add(Row(what, _ratio(ours, theirs), _rate(ours), _rate(theirs), LIBVIRT))
