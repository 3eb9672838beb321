"""The audit over the wire: what callers of a whole host leave behind, and who may read it."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from domzero.engine import login as login_module
from tests.api.harness import PASSWORD, InProcessHost, in_process, login
from tests.xe.terminal import process, socket_of

CURL = ("curl", "--silent", "--show-error", "--insecure", "--fail-with-body")


def fetch(host: InProcessHost, page: str, *, user: str = "root") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*CURL, "--user", f"{user}:{PASSWORD}", f"{host.url}{page}"], capture_output=True)


def lines(host: InProcessHost, since: str = "") -> list[dict[str, Any]]:
    done = fetch(host, f"/audit_log?since={since}")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_calls_are_told_of(host: InProcessHost, api: Any, machine: str) -> None:
    api.VM.set_name_label(machine, "two\nlines")
    api.VM.start(machine, False, False)
    api.VM.hard_shutdown(machine)
    told = {line["call"]: line for line in lines(host)}
    uuid = api.VM.get_uuid(machine)
    assert told["VM.start"]["objects"] == [{"class": "VM", "uuid": uuid, "name": "two\nlines"}]
    assert (told["VM.start"]["who"], told["VM.start"]["result"]) == ("root", "success")
    assert told["VM.start"]["from"] == "127.0.0.1"
    assert told["VM.clone"]["made"][0]["uuid"] == uuid
    assert told["session.login_with_password"]["parameters"]["originator"] == "tests"


def test_secrets_are_not(host: InProcessHost, api: Any, session: Any) -> None:
    secret = api.secret.create({"value": "planted-1", "other_config": {}})
    api.secret.set_value(secret, "planted-2")
    config = {"server": "127.0.0.1", "serverpath": "/x", "password": "planted-3"}
    with pytest.raises(XenAPI.Failure):
        api.SR.create(api.host.get_all()[0], config, "0", "a", "", "nfs", "", False, {})
    with pytest.raises(XenAPI.Failure):
        api.session.change_password("planted-4", "planted-5")
    api.pool.add_to_other_config(api.pool.get_all()[0], "a-password", "planted-6")
    said = fetch(host, "/audit_log").stdout.decode()
    assert "planted" not in said
    assert session.handle not in said
    assert PASSWORD not in said
    for call in (
        "secret.create",
        "secret.set_value",
        "SR.create",
        "session.change_password",
        "pool.add_to_other_config",
    ):
        assert f'"{call}"' in said


def test_who_may_read_it(host: InProcessHost) -> None:
    host.run(host.daemon.engine.users.add("reader", PASSWORD, "read-only"))
    api = login(host.url, "reader").xenapi
    with pytest.raises(XenAPI.Failure):
        api.pool.set_name_label(api.pool.get_all()[0], "mine")
    assert fetch(host, "/audit_log", user="reader").returncode == 0
    assert subprocess.run([*CURL, f"{host.url}/audit_log"], capture_output=True).returncode == 22
    assert fetch(host, "/host_backup", user="reader").returncode == 22
    denied = {
        line["call"]
        for line in lines(host)
        if (line.get("who"), line["result"]) == ("reader", "RBAC_PERMISSION_DENIED")
    }
    assert denied == {"pool.set_name_label", "GET /host_backup"}


def test_passwords_that_come_with_requests(host: InProcessHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_module, "DELAY", (0.0, 0.0))
    command = [*CURL, "--user", "root:planted-8", f"{host.url}/metrics"]
    assert subprocess.run(command, capture_output=True).returncode == 22
    assert fetch(host, "/metrics").returncode == 0
    told = [line for line in lines(host) if line["call"] == "session.login_with_password" and "who" not in line]
    failed = [line for line in told if line["result"] != "success"]
    assert [(line["parameters"], line["from"]) for line in failed] == [
        ({"uname": "root", "originator": "Metrics"}, "127.0.0.1")
    ]
    assert failed[0]["result"] == "SESSION_AUTHENTICATION_FAILED"


def test_addresses_with_passwords(host: InProcessHost, api: Any) -> None:
    for url in ("https://me:planted-9@127.0.0.1:1/", "ftp://me:planted-9@127.0.0.1:1/"):
        with pytest.raises(XenAPI.Failure) as failure:
            api.host.bugreport_upload(api.host.get_all()[0], url, {})
        assert "planted" not in str(failure.value)
    said = fetch(host, "/audit_log").stdout.decode()
    assert "https://me:(hidden)@127.0.0.1:1/" in said
    assert "planted" not in said


def test_pictures_of_screens(host: InProcessHost, api: Any) -> None:
    domain = api.host.get_control_domain(api.host.get_all()[0])
    host.run(host.daemon.engine.users.add("looker", PASSWORD, "read-only"))
    assert fetch(host, f"/vncsnapshot?ref={domain}").returncode == 0
    assert fetch(host, f"/vncsnapshot?ref={domain}", user="looker").returncode == 22
    told = [line for line in lines(host) if line["call"] == "GET /vncsnapshot"]
    assert [(line["who"], line["result"]) for line in told] == [
        ("root", "success"),
        ("looker", "RBAC_PERMISSION_DENIED"),
    ]
    assert told[0]["objects"][0]["class"] == "console"


def test_local_users(host: InProcessHost, tmp_path: Path) -> None:
    (tmp_path / "body").write_text('{"name": "new", "role": "read-only", "password": "planted-7"}')
    command = ("curl", "--silent", "--unix-socket", str(socket_of(host)), "http://localhost/local/users")
    subprocess.run((*command, "--data", f"@{tmp_path}/body"), check=True, capture_output=True)
    subprocess.run((*command, "--request", "DELETE", "--data", '{"name": "new"}'), check=True, capture_output=True)
    told = {line["call"]: line for line in lines(host) if line["from"] == "local"}
    assert told["POST /local/users"]["parameters"] == {"name": "new", "role": "read-only"}
    assert told["DELETE /local/users"]["result"] == "success"
    assert b"planted" not in fetch(host, "/audit_log").stdout


def test_since(host: InProcessHost, api: Any) -> None:
    api.pool.set_name_label(api.pool.get_all()[0], "named")
    newest = lines(host)[-1]["time"]
    assert all(line["time"] >= newest for line in lines(host, newest))
    assert lines(host, "2100-01-01") == []
    done = fetch(host, "/audit_log?since=yesterday")
    assert done.returncode == 22
    assert b"400" in done.stdout


def test_xe(host: InProcessHost, api: Any, tmp_path: Path) -> None:
    api.pool.set_name_label(api.pool.get_all()[0], "named")
    done = process("audit-log-get", f"filename={tmp_path}/log", "since=2020-01-01", "-s", str(socket_of(host)))
    assert (done.returncode, done.stderr) == (0, "")
    assert '"pool.set_name_label"' in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_an_orderly_end_loses_nothing(tmp_path: Path) -> None:
    with in_process(tmp_path) as host:
        api = login(host.url).xenapi
        api.pool.set_name_label(api.pool.get_all()[0], "the last thing")
    path = tmp_path / "state" / "log" / "audit.log"
    assert "the last thing" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
