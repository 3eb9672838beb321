"""Reports on the system and the download of logs: in every form that other programs read, and without a secret."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import XenAPI

from tests.api.harness import PASSWORD, InProcessHost, login
from tests.api.pages import get
from tests.sampling import each
from tests.xe.terminal import process, socket_of

PLANTED = "pl4nted"
"""In every secret that is planted."""


def unpacked(content: bytes, output: str) -> dict[str, bytes]:
    if output == "zip":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.testzip() is None
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(fileobj=io.BytesIO(content)) as packed:
        return {member.name: packed.extractfile(member).read() for member in packed}  # type: ignore[union-attr]  # all are files


@pytest.fixture
def secrets(host: InProcessHost, api: Any, machine: str, tmp_path: Path) -> Iterator[list[str]]:
    """Secrets in every place where one can be put; what they are."""
    found: list[str] = []

    def secret(form: str = "{}") -> str:
        found.append(form.format(f"{PLANTED}{len(found)}"))
        return found[-1]

    record = api.secret.create({"value": secret("with &<>\" '{}'\nand a line"), "other_config": {"token": secret()}})
    found.append(login(host.url).handle)
    api.VM.set_xenstore_data(machine, {"vm-data/anything": secret()})
    api.VM.set_other_config(machine, {"vnc_password": secret(), "auth-token": secret(), "folder": "/shown"})
    api.pool.add_to_other_config(api.pool.get_all()[0], "smtp-password", secret())
    config = {"server": "127.0.0.1", "serverpath": "/x", "cifspassword": secret(), "chappassword": secret()}
    api.SR.create(api.host.get_all()[0], {"location": "/tmp", **config}, "0", "r", "", "file", "", False, {})
    with pytest.raises(XenAPI.Failure):
        api.session.change_password(secret(), secret())
    with pytest.raises(XenAPI.Failure):
        api.secret.set_value("OpaqueRef:none", secret())
    state = Path(host.settings.state_dir or "")
    runtime = state / "run"
    lines = [
        f"password={secret()} other=shown", f'{{"session_id": "{found[2]}"}}', f"/export?session_id={found[2]}&ref=x",
        f"Authorization: Basic {secret('QWxhZGRpbjpvcGVu{}')}", f"nfs://user:{secret()}@server/share",
        f"--password {secret()}", f"$argon2id$v=19$m=65536,t=3,p=4${secret('abc{}')}$hash",
        f"value of a secret object: {api.secret.get_value(record).splitlines()[0]}",
        "-----BEGIN PRIVATE KEY-----\n" + secret("MIIEvQIBADAN{}") + "\n-----END PRIVATE KEY-----",
    ]  # fmt: skip
    (runtime / "7").mkdir()
    (runtime / "7" / "qemu.log").write_text("\n".join(lines))
    with (state / "log" / "domzero.log").open("a") as file:
        file.write("\n".join(lines) + "\nshown\n")
    found.append((state / "tls" / "server.pem").read_text().splitlines()[3])
    found += re.findall(r'"(\$argon2[^"]+)"', (state / "passwords.json").read_text())
    yield found
    (runtime / "7" / "qemu.log").unlink()
    (runtime / "7").rmdir()


def test_no_secret_is_in_a_report(host: InProcessHost, secrets: list[str]) -> None:
    assert len(secrets) >= 20
    done, content = get(host, "/system-status?output=tar")
    assert done
    files = unpacked(content, "tar")
    everything = b"\n".join(files.values()).decode()
    assert PLANTED not in everything
    for secret in secrets:
        for line in secret.splitlines():
            assert line not in everything
    assert PASSWORD not in everything
    assert "PRIVATE KEY" not in everything
    assert "other=shown" in files["system-status/domzero-log/domzero.log"].decode()
    assert "shown" in files["system-status/hypervisor/domain-7-qemu.log"].decode()
    assert '"folder":"/shown"' in files["system-status/database/VM.jsonl"].decode()
    assert '"vm-data/anything":"(hidden)"' in files["system-status/database/VM.jsonl"].decode()


@pytest.mark.parametrize("output", each(2, ["zip", "tar", "tar.bz2", ""]))
def test_forms(host: InProcessHost, api: Any, output: str) -> None:
    done, content = get(host, f"/system-status?entries=inventory,process-list,unknown&output={output}")
    assert done
    files = unpacked(content, output or "tar.bz2")
    assert set(files) == {"system-status/inventory/inventory.txt", "system-status/process-list/processes.txt"}
    assert b"SR " in files["system-status/inventory/inventory.txt"]


@pytest.mark.slow
def test_the_parts_are_those_that_are_announced(host: InProcessHost, api: Any) -> None:
    root = ET.fromstring(api.host.get_system_status_capabilities(api.host.get_all()[0]))
    sizes = {part.attrib["key"]: int(part.attrib["max-size"]) for part in root}
    files = unpacked(get(host, "/system-status?output=tar")[1], "tar")
    assert {name.split("/")[1] for name in files} == set(sizes)
    for key, size in sizes.items():
        assert sum(len(content) for name, content in files.items() if name.split("/")[1] == key) <= size
    assert {part.attrib["pii"] for part in root} <= {"yes", "no", "maybe", "if_customized"}


def test_refusals(host: InProcessHost) -> None:
    done, said = get(host, "/system-status?output=rar")
    assert not done
    assert b"400" in said
    host.run(host.daemon.engine.users.add("admin", PASSWORD, "vm-power-admin"))
    assert b"403" in get(host, "/system-status", user="admin")[1]
    assert b"403" in get(host, "/host_logs_download", user="admin")[1]


def test_logs(host: InProcessHost, api: Any, tmp_path: Path) -> None:
    logs = Path(host.settings.state_dir or "") / "log"
    (logs / "domzero.log.1").write_text("turned over\n" * 100_000)
    (logs / "link.log").symlink_to("/etc/passwd")
    api.pool.set_name_label(api.pool.get_all()[0], "told")
    target = tmp_path / "logs.tar"
    assert get(host, "/host_logs_download", target=target)[0]
    names = subprocess.run(("tar", "--list", "--file", target), capture_output=True, text=True, check=True).stdout
    assert {"logs/audit.log", "logs/domzero.log.1"} <= set(names.split())
    assert "link" not in names
    with tarfile.open(target) as archive:
        assert archive.extractfile("logs/domzero.log.1").read() == b"turned over\n" * 100_000  # type: ignore[union-attr]  # it is a file
        assert b"told" in archive.extractfile("logs/audit.log").read()  # type: ignore[union-attr]  # it is a file


def test_xe(host: InProcessHost, tmp_path: Path) -> None:
    where = ("-s", str(socket_of(host)))
    done = process("host-get-system-status", f"filename={tmp_path}/report", "entries=inventory", "output=zip", *where)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(unpacked((tmp_path / "report").read_bytes(), "zip")) == ["system-status/inventory/inventory.txt"]
    done = process("host-logs-download", f"file-name={tmp_path}/logs", *where)
    assert (done.returncode, done.stderr) == (0, "")
    assert tarfile.is_tarfile(tmp_path / "logs")
    done = process("host-get-system-status-capabilities", *where)
    assert "<capability" in done.stdout
    done = process("host-bugreport-upload", *where)
    assert done.returncode == 1
    assert "url" in done.stderr
    done = process("host-bugreport-upload", "url=http://127.0.0.1:1/", "http_proxy=http://127.0.0.1:2/", *where)
    assert "The report could not be sent" in done.stderr
    assert not list(Path(host.settings.state_dir or "").glob("scratch-*"))
