"""Our client as people run it: options, output, prompts, exit codes."""

from __future__ import annotations

import gzip
import os
import pty
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from domzero.client.xe import Terminal
from domzero.client.xe_options import OptionError, Options, options, split_extra
from tests.api.harness import PASSWORD, InProcessHost
from tests.xe.terminal import HELLO, PREFIX, ROOT, port_of, printed, process, socket_of


def parsed(*arguments: str, extra: str = "", lines: tuple[str, ...] = ()) -> Options:
    return options(arguments, extra, lines)


def test_options_are_taken_out_and_everything_else_goes_to_the_host() -> None:
    chosen = parsed(
        "vm-start", "vm=x", "-s", "host", "-u", "me", "-pw", "p", "--nossl", "--force", "uuid=1", "-p", "81"
    )
    assert chosen.arguments == ["vm-start", "vm=x", "--force", "uuid=1"]
    assert (chosen.server, chosen.username, chosen.password) == ("host", "me", "p")
    assert (chosen.tls, chosen.tcp_port) == (False, 81)
    assert parsed("vm-list", "-h", "there", "--nossl").tcp_port == 80
    assert parsed("vm-list").tcp_port == 443


def test_the_command_line_comes_before_the_environment_and_that_before_the_file() -> None:
    lines = ("# mine", "server=file", "username=file", "password = no", "port=1", "junk")
    extra = "server=environment,username=environment,--minimal"
    chosen = parsed("vm-list", "server=line", extra=extra, lines=lines)
    assert (chosen.server, chosen.username, chosen.port) == ("line", "environment", 1)
    assert chosen.password == "no"
    assert chosen.arguments[:2] == ["vm-list", "--minimal"]


def test_extra_arguments_are_separated_by_commas() -> None:
    assert split_extra(r"a=b\,c,--x,d=\\,,e=\z") == ["a=b,c", "--x", "d=\\", r"e=\z"]


def test_a_password_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("me\nsecret=,x\n")
    chosen = parsed("vm-list", "-pwf", str(path), lines=("password=other",))
    assert (chosen.username, chosen.password) == ("me", "secret=,x")
    assert parsed("vm-list", "-pwf", str(path), "-pw", "typed").password == "typed"
    path.write_text("me")
    with pytest.raises(OptionError):
        parsed("vm-list", "-pwf", str(path))


@pytest.mark.parametrize(
    "arguments", [("x", "-s"), ("x", "-p", "http"), ("x", "-p", "70000"), ("x", "a=b\nc"), ("x", "-u", "a\nb")]
)
def test_options_that_make_no_sense(arguments: tuple[str, ...]) -> None:
    with pytest.raises(OptionError):
        parsed(*arguments)


def test_a_command_by_the_socket(host: InProcessHost) -> None:
    done = process("host-list", "params=name-label", "--minimal", "-s", str(socket_of(host)))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{os.uname().nodename.partition('.')[0]}\n" or done.stdout.strip()


def test_a_command_by_tls(host: InProcessHost, tmp_path: Path) -> None:
    where = ("-s", "127.0.0.1", "-p", str(port_of(host)))
    done = process("vm-list", "--minimal", *where, "-u", "root", "-pw", PASSWORD)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / ".xe").write_text(f"server=127.0.0.1\nport={port_of(host)}\npassword={PASSWORD}\n")
    assert process("vm-list", "--minimal", home=tmp_path).stdout == done.stdout
    extra = f"server=127.0.0.1,port={port_of(host)},username=root,password={PASSWORD}"
    assert process("vm-list", "--minimal", XE_EXTRA_ARGS=extra).stdout == done.stdout


def test_the_socket_in_its_usual_place_is_the_default(host: InProcessHost, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom domzero.client import xe, xe_connection\n"
        f"xe_connection.own_sockets = lambda: ['/nowhere', {str(socket_of(host))!r}]\n"
        "sys.argv[1:] = ['vm-list', '--minimal']\nsys.exit(xe.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT / "src"), "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.strip()) == 36


def test_failures_have_exit_code_one(host: InProcessHost, tmp_path: Path) -> None:
    where = ("-s", str(socket_of(host)))
    unknown = process("dance", *where)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr == "Unknown command: dance\nFor usage run: 'xe help'\n"
    coded = process("sr-create", "type=file", "name-label=x", "content-type=user", *where)
    assert coded.returncode == 1
    assert coded.stderr.startswith("Error code: SR_BACKEND_FAILURE_")
    assert "\nError parameters: " in coded.stderr
    lost = process("vm-list", "-s", str(tmp_path / "none"))
    assert lost.returncode == 1
    assert "No host answers at" in lost.stderr
    assert process("vm-list", "-s", "127.0.0.1", "-p", "1").returncode == 1


def test_what_the_host_is_at_is_told_where_asked_for(host: InProcessHost) -> None:
    where = ("-s", "127.0.0.1", "-p", str(port_of(host)), "-pw", PASSWORD)
    told = process("vm-list", "--minimal", "--debug", *where)
    assert (told.returncode, told.stdout) == (0, process("vm-list", "--minimal", *where).stdout)
    assert re.fullmatch(r"(\w+\.\w+: done, [0-9.]+ ms\n)+", told.stderr)
    assert "VM.get_all_records: done" in told.stderr
    wrong = ("vm-param-get", "uuid=nothing", "param-name=uuid")
    assert process("vm-list", "--minimal", "--debug-on-fail", *where).stderr == ""
    assert "VM.get_by_uuid: UUID_INVALID" in process(*wrong, "--debug-on-fail", *where).stderr
    assert "ms\n" not in process(*wrong, *where).stderr
    assert PASSWORD not in told.stderr


def test_what_is_no_host(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path), "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={"PYTHONUNBUFFERED": "1"},
    ) as server:  # fmt: skip
        assert server.stdout is not None
        port = server.stdout.readline().split("port ")[1].split(" ")[0]
        done = process("vm-list", "--nossl", "-s", "127.0.0.1", "-p", port)
        server.terminate()
    assert done.returncode == 1
    assert "does not speak xe's protocol" in done.stderr


def test_usage() -> None:
    assert process("--help").returncode == 0
    assert process("--help").stdout.startswith("Usage: xe COMMAND")
    bare = process()
    assert (bare.returncode, bare.stdout) == (1, "")
    assert bare.stderr.startswith("Usage: xe COMMAND")
    assert process("--version").stdout.startswith("domzero xe ")
    assert process("-s", "/nowhere", "-version").stdout.startswith("domzero xe ")
    assert process("-s", "/nowhere", "-help").stdout == process("--help").stdout


def test_whoever_asks_what_a_command_does_is_not_shown_it(host: InProcessHost, machine: str) -> None:
    where = ("-s", str(socket_of(host)))
    done = process("vm-start", f"uuid={machine}", "--help", *where)
    assert (done.returncode, done.stdout) == (0, process("help", "vm-start", *where).stdout)
    assert printed(host, "vm-param-get", f"uuid={machine}", "param-name=power-state") == "halted\n"


@pytest.mark.parametrize(("minor", "times"), [(1, 0), (2, 1), (3, 1)])
def test_only_hosts_that_know_the_word_are_told_to_wait(minor: int, times: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(PREFIX + struct.pack("<ii", 0, minor) + struct.pack("<iiii", 12, 9, 4, 0))
        terminal = Terminal(parsed("vm-list"), ours)
        assert terminal.run() == 0
        sent = theirs.recv(4096)
        terminal.wait()
        ours.shutdown(socket.SHUT_WR)
        assert sent.endswith(HELLO)
        assert theirs.recv(4096) == struct.pack("<iii", 8, 10, 18) * times


def test_a_question_is_answered_by_a_line(host: InProcessHost, machine: str) -> None:
    given = ("vm-uninstall", f"uuid={machine}", "-s", str(socket_of(host)))
    assert process(*given, typed="").returncode == 1
    assert process(*given, typed="no\n").returncode == 1
    done = process(*given, typed="yes\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("Type 'yes' to continue\nAll objects destroyed\n")


@pytest.mark.parametrize("stdin", ["<&-", "<answer"], ids=["closed", "no text"])
def test_an_answer_that_is_none(host: InProcessHost, machine: str, tmp_path: Path, stdin: str) -> None:
    (tmp_path / "answer").write_bytes(b"\xff\n")
    command = [sys.executable, "-m", "domzero.client.xe", "vm-uninstall", f"uuid={machine}", "-s", str(socket_of(host))]
    environment = {"PYTHONPATH": str(ROOT / "src"), "HOME": "/", "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {stdin}', "sh", *command], cwd=tmp_path, env=environment, capture_output=True
    )
    assert (done.returncode, done.stderr) == (1, b"Error: Nothing was done.\n")
    assert printed(host, "vm-list", f"uuid={machine}", "--minimal").strip() == machine


def test_a_reader_that_leaves_is_no_disaster(host: InProcessHost) -> None:
    command = [sys.executable, "-m", "domzero.client.xe", "template-list", "params=all", "-s", str(socket_of(host))]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PYTHONPATH": str(ROOT / "src"), "HOME": "/"}
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.read(1)
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(30) in (0, 1)


def test_an_archive_on_standard_output_is_nothing_but_that(host: InProcessHost, machine: str) -> None:
    given = ["vm-export", f"uuid={machine}", "filename=", "compress=true", "-s", str(socket_of(host))]
    environment = {"PYTHONPATH": str(ROOT / "src"), "HOME": "/"}
    done = subprocess.run([sys.executable, "-m", "domzero.client.xe", *given], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert gzip.decompress(done.stdout)[-1024:] == bytes(1024)


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_shown_does_not_steer_a_terminal(host: InProcessHost, machine: str, terminal: bool) -> None:
    printed(host, "vm-param-set", f"uuid={machine}", "name-label=ü\x9b1m\t.")
    given = ["vm-list", f"uuid={machine}", "params=name-label", "--minimal", "-s", str(socket_of(host))]
    ours, theirs = pty.openpty() if terminal else os.pipe()
    environment = {"PYTHONPATH": str(ROOT / "src"), "HOME": "/"}
    subprocess.run([sys.executable, "-m", "domzero.client.xe", *given], stdout=theirs, env=environment, check=True)
    os.close(theirs)
    shown = os.read(ours, 1000).decode().strip("\r\n")
    os.close(ours)
    assert shown == (r"ü\x9b1m" if terminal else "ü\x9b1m") + "\t."


def test_names_of_bytes_that_are_no_text(host: InProcessHost, machine: str) -> None:
    where = ("-s", str(socket_of(host)))
    process("vm-param-set", f"uuid={machine}", "name-label=Grüße", *where)
    assert process("vm-list", "name-label=Grüße", "--minimal", *where).stdout.strip() == machine


def test_the_client_brings_little_along() -> None:
    """What makes it start quickly (`bench` measures how quickly): of the library no more than a connection takes."""
    said = process("help", "-s", "/nonexistent", PYTHONPROFILEIMPORTTIME="1").stderr
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in said.splitlines() if "import time" in line}
    assert "socket" in names
    assert not names & {"asyncio", "argparse", "email", "http", "inspect", "json", "logging", "re", "ssl", "typing"}
