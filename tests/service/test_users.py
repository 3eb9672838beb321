"""`domzero user`: local people with a role, from the command to their logins."""

from __future__ import annotations

import http.client
import json
import os
import pty
import select
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import XenAPI
from XenAPI.XenAPI import UDSTransport

from domzero.cli.main import main
from domzero.client.local import LocalError, request
from domzero.datamodel.roles import ROLES
from tests.api.harness import InProcessHost, in_process, login, plain_proxy
from tests.service.daemons import COMMAND, PATIENCE, environment

SECRET = "pass-phrase no log may show"
ROLE_NAMES = [role.name for role in ROLES]
"""From the one that may least."""

DEEDS: list[tuple[Any, ...]] = [
    ("vm-operator", lambda api: api.VM.start, False, False),
    ("vm-admin", lambda api: api.VM.set_name_label, "x"),
    ("vm-power-admin", lambda api: api.VM.set_memory, "1"),
    ("pool-operator", lambda api: api.VM.power_state_reset),
    ("pool-admin", lambda api: api.VM.send_sysrq, "h"),
]
"""A message of each least role, and its arguments after a machine that does not exist."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessHost]:
    with in_process(tmp_path_factory.mktemp("host"), log_level="debug") as running:
        yield running


@pytest.fixture
def unix(host: InProcessHost) -> Path:
    path: Path = host.settings.state_dir / "run" / "xapi"
    return path


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\nand a second line\n")
    return path


def user(unix: Path, *arguments: object) -> int:
    return main(["user", "--socket", str(unix), *map(str, arguments)])


def add(unix: Path, name: str, role: str, secret: Path) -> None:
    assert user(unix, "add", name, "--role", role, "--password-file", secret) == 0


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence on standard error."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("domzero: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("domzero: ").strip()


def failure(call: Any, *arguments: object) -> str:
    with pytest.raises(XenAPI.Failure) as caught:
        call(*arguments)
    return str(caught.value.details[0])


def test_at_first_there_is_root(unix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert user(unix, "list") == 0
    assert "root                 pool-admin       superuser" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_a_user_logs_in_and_may_what_the_role_allows(
    host: InProcessHost, unix: Path, secret: Path, role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"a-{role}"
    assert user(unix, "add", name, "--role", role, "--fullname", "A Person", "--password-file", secret) == 0
    assert f"{name:20} {role:16} A Person" in capsys.readouterr().out.splitlines()
    session = login(host.url, name, SECRET)
    api = session.xenapi
    assert api.session.get_auth_user_name(session.handle) == name
    assert not api.session.get_is_local_superuser(session.handle)
    assert "vm.get_record" in api.session.get_rbac_permissions(session.handle)
    answers = {least: failure(deed(api), "OpaqueRef:nothing", *arguments) for least, deed, *arguments in DEEDS}
    allowed = ROLE_NAMES[: ROLE_NAMES.index(role) + 1]
    assert answers == {
        least: "HANDLE_INVALID" if least in allowed else "RBAC_PERMISSION_DENIED" for least in ROLE_NAMES[1:]
    }


def test_a_role_given_anew_counts_for_sessions_that_are_open(host: InProcessHost, unix: Path, secret: Path) -> None:
    add(unix, "climber", "read-only", secret)
    api = login(host.url, "climber", SECRET).xenapi
    assert failure(api.VM.set_name_label, "OpaqueRef:nothing", "x") == "RBAC_PERMISSION_DENIED"
    add(unix, "climber", "vm-admin", secret)
    assert failure(api.VM.set_name_label, "OpaqueRef:nothing", "x") == "HANDLE_INVALID"
    add(unix, "climber", "read-only", secret)
    assert failure(api.VM.set_name_label, "OpaqueRef:nothing", "x") == "RBAC_PERMISSION_DENIED"


def test_removal_ends_the_users_sessions_and_nobody_elses(
    host: InProcessHost, unix: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(unix, "leaver", "pool-admin", secret)
    add(unix, "stayer", "read-only", secret)
    root, stayer = login(host.url), login(host.url, "stayer", SECRET)
    leavers = [login(host.url, "leaver", SECRET).handle for _ in range(2)]
    capsys.readouterr()
    assert user(unix, "remove", "leaver") == 0
    assert "leaver" not in capsys.readouterr().out
    # The binding would log in again by itself.
    proxy = plain_proxy(host.url)
    for handle in leavers:
        assert proxy.VM.get_all(handle)["ErrorDescription"] == ["SESSION_INVALID", handle]
    stored = [row.record["auth_user_name"] for row in host.daemon.stack.database.rows("session").values()]
    assert "stayer" in stored
    assert "leaver" not in stored
    assert root.xenapi.VM.get_all()
    assert stayer.xenapi.VM.get_all()
    assert "leaver" not in json.loads((host.settings.state_dir / "passwords.json").read_text())


def test_a_user_whose_subject_was_destroyed_is_removed_without_harm(
    host: InProcessHost, unix: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(unix, "half", "vm-admin", secret)
    root = login(host.url)
    root.xenapi.subject.destroy(
        next(
            ref
            for ref, record in root.xenapi.subject.get_all_records().items()
            if record["subject_identifier"] == "half"
        )
    )
    assert user(unix, "remove", "half") == 0
    assert root.xenapi.VM.get_all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("remove", "nobody"), "UNKNOWN_USER: nobody"),
        (("remove", "root"), "UNKNOWN_USER: root"),
        (("add", "root", "--role", "read-only"), "INVALID_VALUE: short_name: root"),
        (("add", "", "--role", "read-only"), "INVALID_VALUE: short_name: "),
    ],
)
def test_what_the_daemon_refuses(
    unix: Path, secret: Path, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--password-file", secret) if arguments[0] == "add" else ()
    assert user(unix, *arguments, *more) == 1
    assert refusal(capsys) == said.strip()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "the password is empty"),
        (b"\nsecond line\n", "the password is empty"),
        (b"\xff\n", "is no text"),
        (b"x" * 1025, "CHANGE_PASSWORD_REJECTED"),
    ],
)
def test_unfit_password_files(
    unix: Path, tmp_path: Path, content: bytes | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    assert user(unix, "add", "somebody", "--role", "read-only", "--password-file", file) == 1
    assert said in refusal(capsys)


def test_the_first_line_counts_whatever_ends_it(host: InProcessHost, unix: Path, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"from elsewhere\r\nsecond")
    add(unix, "visitor", "read-only", file)
    assert login(host.url, "visitor", "from elsewhere").xenapi.VM.get_all()


@pytest.mark.parametrize(
    "arguments", [("add", "x"), ("add", "x", "--role", "king"), ("add", "x", "--password", "y"), ()]
)
def test_wrong_usage(unix: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        user(unix, *arguments)
    assert ended.value.code == 2
    assert "usage: domzero user" in capsys.readouterr().err


def test_without_a_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert user(tmp_path / "nothing", "list") == 1
    assert f"no domzero answers at {tmp_path / 'nothing'}" in refusal(capsys)


def test_names_cannot_write_on_the_terminal(unix: Path, secret: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "ev\x1b[2Jil\nroot"
    add(unix, name, "read-only", secret)
    out = capsys.readouterr().out
    assert "ev\\x1b[2Jil\\nroot" in out
    assert "\x1b" not in out
    assert user(unix, "remove", name) == 0


def test_passwords_are_nowhere(host: InProcessHost, unix: Path, secret: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    add(unix, "quiet", "read-only", secret)
    login(host.url, "quiet", SECRET)
    host.run(host.daemon.stack.database.durable())
    assert SECRET not in caplog.text
    kept = [path for path in host.settings.state_dir.rglob("*") if path.is_file()]
    assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []
    private = [path for path in kept if path.name.startswith(("passwords", "state.db"))]
    assert len(private) >= 2
    assert [path for path in private if path.stat().st_mode & 0o077] == []


@pytest.mark.slow
def test_logins_that_fail(host: InProcessHost, unix: Path, secret: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong password takes seconds to be told so, hence all in one."""
    caplog.set_level("DEBUG")
    add(unix, "shortly", "pool-admin", secret)
    assert login(host.url, "shortly", SECRET)
    assert user(unix, "remove", "shortly") == 0
    for password in (SECRET, SECRET + " mistyped"):
        with pytest.raises(XenAPI.Failure, match="SESSION_AUTHENTICATION_FAILED"):
            login(host.url, "shortly", password)
    assert SECRET not in caplog.text


def type_at(unix: Path, *lines: str) -> tuple[int, str]:
    """Run `user add` on a terminal and type. The exit code and all that the terminal showed."""
    controller, terminal = pty.openpty()
    argv = [*COMMAND, "user", "--socket", str(unix), "add", "typist", "--role", "read-only"]
    with subprocess.Popen(
        ["setsid", "--ctty", *argv], stdin=terminal, stdout=terminal, stderr=terminal, env=environment()
    ) as child:
        os.close(terminal)
        shown = b""
        for line in lines:
            while not shown.endswith(b": "):
                shown += _shown(controller)
            assert Path(f"/proc/{child.pid}/cmdline").read_text().split("\0")[:-1] == argv
            os.write(controller, line.encode())
            shown += _shown(controller)
        while piece := _shown(controller):
            shown += piece
        os.close(controller)
        return child.wait(PATIENCE), shown.decode()


def _shown(terminal: int) -> bytes:
    assert select.select([terminal], [], [], PATIENCE)[0], "the command does not go on"
    try:
        return os.read(terminal, 1024)
    except OSError:
        # How Linux says that nobody has the terminal open any more (pty(7)).
        return b""


def test_a_typed_password_is_not_shown(host: InProcessHost, unix: Path) -> None:
    code, shown = type_at(unix, "typed twice\n", "typed twice\n")
    assert code == 0
    assert "typed twice" not in shown
    assert "typist" in shown
    assert login(host.url, "typist", "typed twice").xenapi.VM.get_all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "code", "said"),
    [
        (("one\n", "another\n"), 1, "domzero: the two passwords differ"),
        (("\n", "\n"), 1, "domzero: the password is empty"),
        (("\x04",), 1, "domzero: no password was given"),
        (("\x03",), 130, ""),
    ],
)
def test_what_may_go_wrong_while_typing(unix: Path, lines: tuple[str, ...], code: int, said: str) -> None:
    ended, shown = type_at(unix, *lines)
    assert ended == code
    assert said in shown
    assert "Traceback" not in shown


def over_https(host: InProcessHost, method: str, body: bytes) -> int:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    where = urlsplit(host.url)
    connection = http.client.HTTPSConnection(where.hostname or "", where.port, context=context)
    connection.request(method, "/local/users", body, {"Content-Type": "application/json"})
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_only_local_clients_may(host: InProcessHost, unix: Path, method: str) -> None:
    body = json.dumps({"name": "intruder", "role": "pool-admin", "password": "x"}).encode()
    assert over_https(host, method, body) == 403
    assert "intruder" not in json.dumps(request(unix, "GET", "/local/users"))


NO_USERS: list[Any] = [
    None,
    [],
    "text",
    {},
    {"name": "x"},
    {"name": "x", "password": "y"},
    {"name": 1, "password": "y", "role": "pool-admin"},
    {"name": "x", "password": None, "role": "pool-admin"},
    {"name": "x", "password": "y", "role": ["pool-admin"]},
    {"name": "x", "password": "y", "role": "pool-admin", "fullname": 5},
    {"name": "x\ud800", "password": "y", "role": "pool-admin"},
]


@pytest.mark.parametrize("content", NO_USERS)
def test_unfit_requests(unix: Path, content: Any) -> None:
    before = request(unix, "GET", "/local/users")
    with pytest.raises(LocalError, match="400"):
        request(unix, "POST", "/local/users", content)
    assert request(unix, "GET", "/local/users") == before


def test_a_role_that_is_none_is_refused_by_name(unix: Path) -> None:
    with pytest.raises(LocalError, match="ROLE_NOT_FOUND"):
        request(unix, "POST", "/local/users", {"name": "x", "password": "y", "role": "king"})


def test_root_on_the_unix_socket_needs_no_password(unix: Path) -> None:
    # The binding's transport for Unix sockets spells slashes as underscores.
    session = XenAPI.Session("http://" + str(unix).replace("/", "_") + "/", transport=UDSTransport())
    session.xenapi.login_with_password("root", "anything", "1.0", "tests")
    assert session.xenapi.session.get_is_local_superuser(session.handle)
    session.xenapi.session.logout()
    session("close")()
