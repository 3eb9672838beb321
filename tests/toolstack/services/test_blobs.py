"""Blobs by `curl`, the official binding and `xe`: what goes in comes out, to whom it may, and nothing else does."""

from __future__ import annotations

import base64
import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from XenAPI import Failure

from domzero.toolstack.blobs import blob as blobs
from domzero.toolstack.blobs import files
from domzero.toolstack.blobs.pages import headers
from domzero.wire.http import response_head
from tests.api.harness import PASSWORD, InProcessHost, in_process, login
from tests.xe.terminal import printed, process, raw, secured, socket_of

CONTENT = bytes(range(256)) * 5000


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessHost]:
    with in_process(tmp_path_factory.mktemp("host")) as running:
        yield running


@pytest.fixture(scope="module")
def api(host: InProcessHost) -> Any:
    return login(host.url).xenapi


@pytest.fixture
def pool(api: Any) -> str:
    return str(api.pool.get_all()[0])


def directory(host: InProcessHost) -> Path:
    assert host.settings.state_dir is not None
    return files.directory_of(host.settings.state_dir)


def curl(host: InProcessHost, query: str, *words: str | Path, known: bool = True) -> tuple[int, bytes, str]:
    """Status, body and headers."""
    who = ("--user", f"root:{PASSWORD}") if known else ()
    command = ["curl", "-sk", "--max-time", "20", "-D", "/dev/stderr", *who, *words, f"{host.url}/blob?{query}"]
    done = subprocess.run(command, capture_output=True)
    head = done.stderr.decode()
    return int(head.rsplit("HTTP/1.1 ", 1)[1].split()[0]), done.stdout, head


def put(host: InProcessHost, query: str, content: bytes, tmp_path: Path, *words: str) -> int:
    (tmp_path / "content").write_bytes(content)
    return curl(host, query, "-T", tmp_path / "content", *words)[0]


def test_what_is_sent_is_fetched(host: InProcessHost, api: Any, pool: str, tmp_path: Path) -> None:
    blob = api.pool.create_new_blob(pool, "logo", "image/png", False)
    assert api.pool.get_blobs(pool)["logo"] == blob
    before = api.blob.get_record(blob)
    assert (before["name_label"], before["mime_type"], before["size"]) == ("logo", "image/png", "0")
    assert before["last_updated"].value == "19700101T00:00:00Z"
    assert curl(host, f"ref={blob}")[0] == 404
    assert put(host, f"uuid={before['uuid']}", CONTENT, tmp_path) == 200
    status, body, head = curl(host, f"ref={blob}")
    assert (status, body) == (200, CONTENT)
    assert "content-type: image/png" in head
    assert "nosniff" in head
    assert "inline" in head
    after = api.blob.get_record(blob)
    assert after["size"] == str(len(CONTENT))
    assert after["last_updated"].value > before["last_updated"].value
    assert put(host, f"ref={blob}", b"short", tmp_path) == 200
    assert curl(host, f"uuid={before['uuid']}")[1] == b"short"
    assert directory(host).joinpath(before["uuid"]).stat().st_mode & 0o777 == 0o600


def test_a_blob_goes_with_its_content(host: InProcessHost, api: Any, pool: str, tmp_path: Path) -> None:
    blob = api.pool.create_new_blob(pool, "short-lived", "", False)
    uuid = api.blob.get_uuid(blob)
    assert put(host, f"ref={blob}", b"x", tmp_path) == 200
    assert (directory(host) / uuid).exists()
    api.blob.destroy(blob)
    assert not (directory(host) / uuid).exists()
    assert "short-lived" not in api.pool.get_blobs(pool)
    assert curl(host, f"ref={blob}")[0] == 404
    assert curl(host, f"uuid={uuid}")[0] == 404


def test_names_are_unique_per_object(api: Any, pool: str) -> None:
    network = api.network.get_all()[0]
    for cls, owner in (("pool", pool), ("network", network), ("host", api.host.get_all()[0])):
        getattr(api, cls).create_new_blob(owner, "twice", "", False)
        with pytest.raises(Failure) as error:
            getattr(api, cls).create_new_blob(owner, "twice", "", False)
        assert error.value.details == ["MAP_DUPLICATE_KEY", cls, "blobs", owner, "twice"]


def test_only_public_ones_are_for_everybody(host: InProcessHost, api: Any, tmp_path: Path) -> None:
    closed, open_ = api.blob.create("text/plain", False), api.blob.create("text/plain", True)
    for blob in (closed, open_):
        assert put(host, f"ref={blob}", b"hello", tmp_path) == 200
    assert curl(host, f"ref={open_}", known=False)[:2] == (200, b"hello")
    assert curl(host, f"uuid={api.blob.get_uuid(open_)}", known=False)[:2] == (200, b"hello")
    for query in (f"ref={closed}", f"uuid={api.blob.get_uuid(closed)}", "ref=OpaqueRef:none", "uuid=..%2Fstate.db", ""):
        assert curl(host, query, known=False)[0] == 401
    # Everybody may read it; nobody may write it.
    (tmp_path / "evil").write_bytes(b"evil")
    assert curl(host, f"ref={open_}", "-T", tmp_path / "evil", known=False)[0] == 401
    api.blob.set_public(open_, False)
    assert curl(host, f"ref={open_}", known=False)[0] == 401


@pytest.mark.parametrize(
    ("mime_type", "sent", "disposition"),
    [
        ("text/plain", "text/plain", "inline"),
        ("text/html", "text/html", "attachment"),
        ("image/svg+xml", "image/svg+xml", "attachment"),
        ("application/javascript", "application/javascript", "attachment"),
        ("text/plain\r\nset-cookie: a=b", "application/octet-stream", "attachment"),
        ("nonsense", "application/octet-stream", "attachment"),
        ("", "application/octet-stream", "attachment"),
        ("text/csv; charset=utf-8", "text/csv; charset=utf-8", "inline"),
    ],
)
def test_no_browser_runs_what_somebody_sent(
    host: InProcessHost, api: Any, tmp_path: Path, mime_type: str, sent: str, disposition: str
) -> None:
    blob = api.blob.create(mime_type, True)
    assert put(host, f"ref={blob}", b"<script>", tmp_path) == 200
    _, _, head = curl(host, f"ref={blob}")
    lines = head.splitlines()
    assert f"content-type: {sent}" in lines
    assert f'content-disposition: {disposition}; filename="blob-{api.blob.get_uuid(blob)}"' in lines
    assert "x-content-type-options: nosniff" in lines
    assert "content-security-policy: sandbox; default-src 'none'" in lines
    assert "set-cookie" not in head


def test_an_upload_that_fails_changes_nothing(host: InProcessHost, api: Any, tmp_path: Path) -> None:
    blob = api.blob.create("", False)
    assert put(host, f"ref={blob}", b"former", tmp_path) == 200
    task = api.task.create("upload", "")
    with secured(host) as connection:
        who = base64.b64encode(f"root:{PASSWORD}".encode()).decode()
        head = f"PUT /blob?ref={blob}&task_id={task} HTTP/1.0\r\nContent-Length: 100\r\nAuthorization: Basic {who}"
        connection.sendall(f"{head}\r\n\r\nabc".encode())
    token = ""
    while api.task.get_status(task) == "pending":
        token = getattr(api.event, "from")([f"task/{task}"], token, 5.0)["token"]
    assert api.task.get_status(task) == "failure"
    assert curl(host, f"ref={blob}")[1] == b"former"
    assert api.blob.get_size(blob) == "6"
    assert not list(directory(host).glob(f"*{files.UNFINISHED}"))


def test_an_upload_can_be_cancelled(host: InProcessHost, api: Any) -> None:
    blob, task = api.blob.create("", False), api.task.create("upload", "")
    with secured(host) as connection:
        who = base64.b64encode(f"root:{PASSWORD}".encode()).decode()
        head = f"PUT /blob?ref={blob}&task_id={task} HTTP/1.0\r\nContent-Length: 100\r\nAuthorization: Basic {who}"
        connection.sendall(f"{head}\r\n\r\nabc".encode())
        token = ""
        while api.task.get_progress(task) == 0.0:
            token = getattr(api.event, "from")([f"task/{task}"], token, 5.0)["token"]
        api.task.cancel(task)
        while api.task.get_status(task) in ("pending", "cancelling"):
            token = getattr(api.event, "from")([f"task/{task}"], token, 5.0)["token"]
    assert api.task.get_status(task) == "cancelled"
    assert curl(host, f"ref={blob}")[0] == 404
    assert not list(directory(host).glob(f"*{files.UNFINISHED}"))


def test_a_reader_reads_and_does_not_write(host: InProcessHost, api: Any, tmp_path: Path) -> None:
    host.run(host.daemon.engine.users.add("reader", "sesame", "read-only"))
    blob = api.blob.create("", False)
    assert put(host, f"ref={blob}", b"hello", tmp_path) == 200
    (tmp_path / "evil").write_bytes(b"evil")
    as_reader = ("--user", "reader:sesame")
    assert curl(host, f"ref={blob}", *as_reader, known=False)[:2] == (200, b"hello")
    assert curl(host, f"ref={blob}", "-T", tmp_path / "evil", *as_reader, known=False)[0] == 403
    assert curl(host, f"ref={blob}")[1] == b"hello"


def test_too_much_is_refused(host: InProcessHost, api: Any, tmp_path: Path) -> None:
    blob = api.blob.create("", False)
    huge = ("-X", "PUT", "-H", f"Content-Length: {files.LARGEST + 1}", "-H", "Expect:")
    assert curl(host, f"ref={blob}", *huge)[0] == 413
    assert put(host, f"ref={blob}", b"abc", tmp_path, "-H", "Transfer-Encoding: chunked") == 411
    assert curl(host, f"ref={blob}")[0] == 404


def test_the_limits_hold_whatever_was_announced(tmp_path: Path) -> None:
    def stored(uuid: str, size: int, **limits: int) -> None:
        upload = files.Upload(tmp_path, uuid, **limits)
        try:
            upload.write(b"x" * size)
            upload.keep()
        finally:
            upload.discard()

    first, second = "c62c2e87-8f33-4d6f-9f6f-1b9ffbe0b9f0", "7e2bd1d6-3a53-4b92-bbd5-3f1e9fa2d3c1"
    stored(first, 100, largest=100, total=150)
    with pytest.raises(files.TooLargeError):
        stored(second, 101, largest=100, total=1000)
    with pytest.raises(files.TooLargeError):
        stored(second, 51, largest=100, total=150)
    stored(first, 90, largest=100, total=200)
    assert files.sizes(tmp_path) == {first: 90}
    assert files.occupied(tmp_path) == 90
    with pytest.raises(ValueError, match="hexadecimal"):
        files.read(tmp_path, "../passwords.json")


def test_xe(host: InProcessHost, api: Any, tmp_path: Path) -> None:
    machine = printed(host, "vm-install", "template=Tiny Linux", "new-name-label=mine").strip()
    uuid = printed(host, "blob-create", "name=notes", f"vm-uuid={machine}", "mime-type=text/plain").strip()
    (tmp_path / "in").write_bytes(CONTENT)
    done = process("blob-put", f"uuid={uuid}", f"filename={tmp_path}/in", "-s", str(socket_of(host)))
    assert (done.returncode, done.stderr) == (0, "")
    done = process("blob-get", f"uuid={uuid}", f"filename={tmp_path}/out", "-s", str(socket_of(host)))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert "size ( RO): 1280000" in printed(host, "blob-list", f"uuid={uuid}")
    assert raw(host, "blob-create", "name=notes").code == 1
    printed(host, "vm-uninstall", f"uuid={machine}", "--force")
    assert uuid not in printed(host, "blob-list")
    host.run(blobs.collect(host.daemon.stack))
    assert not (directory(host) / uuid).exists()


def test_blobs_go_with_what_they_belong_to(host: InProcessHost, api: Any, tmp_path: Path) -> None:
    network = printed(host, "network-create", "name-label=brief").strip()
    place = f"device-config:location={tmp_path}/brief"
    sr = printed(host, "sr-create", "name-label=brief", "type=file", place).strip()
    blobs_of = {
        api.network.create_new_blob(api.network.get_by_uuid(network), "one", "", False),
        api.SR.create_new_blob(api.SR.get_by_uuid(sr), "two", "", False),
    }
    assert blobs_of <= set(api.blob.get_all())
    printed(host, "network-destroy", f"uuid={network}")
    for pbd in api.SR.get_PBDs(api.SR.get_by_uuid(sr)):
        api.PBD.unplug(pbd)
    printed(host, "sr-destroy", f"uuid={sr}")
    assert not blobs_of & set(api.blob.get_all())


def test_leftovers_are_cleaned_at_a_start(tmp_path: Path) -> None:
    with in_process(tmp_path) as host:
        api = login(host.url).xenapi
        blob = api.blob.create("", False)
        uuid = api.blob.get_uuid(blob)
        assert put(host, f"ref={blob}", b"12345", tmp_path) == 200
        where = directory(host)
    stray = "7e2bd1d6-3a53-4b92-bbd5-3f1e9fa2d3c1"
    (where / stray).write_bytes(b"of nobody")
    (where / f"{uuid}.0011{files.UNFINISHED}").write_bytes(b"half")
    # As where a file system of its own is mounted there.
    (where / "lost+found").mkdir()
    # As after a crash between the content's coming and the row's.
    (where / uuid).write_bytes(b"1234567")
    with in_process(tmp_path) as host:
        api = login(host.url).xenapi
        assert {path.name for path in where.iterdir()} == {uuid, "lost+found"}
        assert api.blob.get_size(blob) == "7"
        assert curl(host, f"ref={blob}")[1] == b"1234567"
        host.run(blobs.collect(host.daemon.stack))
        assert {path.name for path in where.iterdir()} == {uuid, "lost+found"}


def test_a_disk_that_refuses_is_no_end(
    host: InProcessHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is left of a blob is looked for every half a minute; a daemon that could not bear a failure would go."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    directory(host).mkdir(exist_ok=True)
    stray = directory(host) / "7e2bd1d6-3a53-4b92-bbd5-3f1e9fa2d3c1"
    stray.write_bytes(b"of nobody")
    with monkeypatch.context() as context:
        context.setattr(files, "remove", refuse)
        host.run(blobs.collect(host.daemon.stack))
    assert "Read-only file system" in caplog.text
    host.run(blobs.collect(host.daemon.stack))
    assert not stray.exists()


@given(st.one_of(st.text(max_size=30), st.from_regex(r"[a-z]{1,5}/[a-z+;= \"]{1,20}")))
def test_no_media_type_gets_out_of_its_header(mime_type: str) -> None:
    head = response_head(200, headers(mime_type, "uuid"), length=0)
    names = [line.partition(b":")[0] for line in head.rstrip(b"\r\n").split(b"\r\n")[1:]]
    assert len(names) == len(set(names)) == 8
