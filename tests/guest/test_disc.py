"""The disc with the agent: made twice the same, and what is on it can be installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from guest.domzero_guest import BUILD, VERSION

from tests.house.sources import ROOT

pytestmark = pytest.mark.slow

DEB = f"domzero-guest_{VERSION}-{BUILD}_all.deb"
RPM = f"domzero-guest-{VERSION}-{BUILD}.noarch.rpm"
INSTALLED = {
    "/etc/domzero-guest.conf",
    "/usr/lib/domzero-guest/domzero_guest/__main__.py",
    "/usr/lib/systemd/system/domzero-guest.service",
    "/usr/share/doc/domzero-guest/copyright",
}


def output(*arguments: str | Path, **environment: str) -> str:
    done = subprocess.run(arguments, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def disc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The disc's contents."""
    directory = tmp_path_factory.mktemp("disc")
    output(ROOT / "script/guest-tools", directory / "tools.iso")
    output("xorriso", "-osirrox", "on", "-indev", directory / "tools.iso", "-extract", "/", directory / "contents")
    return directory / "contents"


def test_the_same_sources_make_the_same_bytes(disc: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    output(ROOT / "script/guest-tools", tmp_path / "again.iso", TMPDIR=str(other), TZ="Asia/Tokyo", LANG="de_DE.UTF-8")
    assert (tmp_path / "again.iso").read_bytes() == (disc.parent / "tools.iso").read_bytes()
    assert list(other.iterdir()) == [], "nothing is left behind"


def test_the_packages_hold_the_agent(disc: Path) -> None:
    deb = output("dpkg-deb", "--contents", disc / "Linux" / DEB)
    assert {line.split()[-1].removeprefix(".") for line in deb.splitlines()} >= INSTALLED
    assert {line.split()[1] for line in deb.splitlines()} == {"root/root"}
    assert output("dpkg-deb", "--field", disc / "Linux" / DEB, "Version").strip() == f"{VERSION}-{BUILD}"
    assert output("dpkg-deb", "--field", disc / "Linux" / DEB, "Depends").strip() == "python3 (>= 3.6)"
    assert set(output("rpm", "-qpl", disc / "Linux" / RPM).splitlines()) >= INSTALLED
    assert output("rpm", "-qpc", disc / "Linux" / RPM).splitlines() == ["/etc/domzero-guest.conf"]
    assert "python3 >= 3.6" in output("rpm", "-qpR", disc / "Linux" / RPM).splitlines()


def test_the_script_installs_below_a_directory_and_removes_again(disc: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/libexec").mkdir(parents=True)
    (root / "usr/libexec/platform-python").symlink_to("/usr/bin/python3")
    script = disc / "Linux/install.sh"
    output("sh", script, "--root", root)
    assert all((root / path[1:]).is_file() for path in INSTALLED)
    unit = (root / "usr/lib/systemd/system/domzero-guest.service").read_text()
    assert "\nExecStart=/usr/libexec/platform-python -m domzero_guest\n" in unit
    wanted = root / "etc/systemd/system/multi-user.target.wants/domzero-guest.service"
    assert os.readlink(wanted) == "/usr/lib/systemd/system/domzero-guest.service"
    library = str(root / "usr/lib/domzero-guest")
    assert output("python3", "-m", "domzero_guest", "--version", PYTHONPATH=library).strip() == VERSION

    (root / "etc/domzero-guest.conf").write_text("[agent]\n")
    output("sh", script, "--root", root)
    assert (root / "etc/domzero-guest.conf").read_text() == "[agent]\n", "settings that were changed stay"

    output("sh", script, "--remove", "--root", root)
    left = {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}
    assert left == {"etc/domzero-guest.conf", "usr/libexec/platform-python"}


def test_the_script_says_what_is_missing(disc: Path, tmp_path: Path) -> None:
    for arguments, code in ((["--root", str(tmp_path)], 1), (["--root", ""], 2), (["--root"], 2), (["--quick"], 2)):
        done = subprocess.run(
            ["sh", disc / "Linux/install.sh", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == code, arguments
        assert done.stderr.startswith("domzero-guest: ")
    assert list(tmp_path.iterdir()) == []


def test_the_package_is_enabled_where_no_systemd_runs_and_stays_as_its_owner_has_it(tmp_path: Path) -> None:
    """The package's scripts as dpkg runs them for a system below a directory (`DPKG_ROOT` in dpkg(1))."""

    def script(name: str, *arguments: str) -> None:
        output("sh", ROOT / "guest/packaging/deb" / name, *arguments, DPKG_ROOT=str(tmp_path))

    wanted = tmp_path / "etc/systemd/system/multi-user.target.wants/domzero-guest.service"
    script("postinst", "configure", "")
    assert os.readlink(wanted) == "/usr/lib/systemd/system/domzero-guest.service"
    script("prerm", "remove")
    script("postrm", "remove")
    script("postinst", "configure", "1.0.0-1")
    assert wanted.is_symlink(), "enabled when it is installed again"
    wanted.unlink()
    script("prerm", "upgrade", "1.0.1-1")
    script("postinst", "configure", "1.0.0-1")
    assert not wanted.is_symlink(), "disabled after an upgrade, as it was"
    script("postinst", "configure", "")
    (tmp_path / "var/lib/domzero-guest").mkdir(parents=True)
    script("postrm", "purge")
    assert [path for path in tmp_path.rglob("*") if not path.is_dir() or path.name == "domzero-guest"] == []


RIGHTS = ("CAP_SYS_CHROOT", "CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE")
PROGRAMS = (Path("/usr/bin"), Path("/usr/lib64"), *Path("/usr/lib").glob("*-linux-gnu"))
"""What rpm's scripts need of a system, with the libraries."""
NAMESPACES = tuple(f"--unshare-{kind}" for kind in ("ipc", "pid", "net", "uts", "cgroup-try"))
"""None of users: root that was shut into a directory itself (chroot) may not have one."""


@pytest.mark.root
@pytest.mark.skipif(shutil.which("bwrap") is None or os.geteuid() != 0, reason="needs root, and bwrap")
def test_the_rpm_is_installed_replaced_and_erased_in_a_system_of_its_own(disc: Path, tmp_path: Path) -> None:
    """By rpm itself, shut in: nothing but the directory can be written."""
    root = tmp_path / "root"
    shown = [root / place.relative_to("/") for place in PROGRAMS]
    for place in (*shown, root / "etc"):
        place.mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")

    def rpm(*arguments: str | Path) -> None:
        programs = [word for place in PROGRAMS for word in ("--ro-bind", place, f"/mnt{place}")]
        rights = [word for name in RIGHTS for word in ("--cap-add", name)]
        inside = ["bwrap", *NAMESPACES, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
        output(*inside, "--bind", root, "/mnt", *programs, *rights, "rpm", "--root", "/mnt", *arguments)

    package, settings = disc / "Linux" / RPM, root / "etc/domzero-guest.conf"
    wanted = root / "etc/systemd/system/multi-user.target.wants/domzero-guest.service"
    rpm("--install", "--nodeps", package)
    assert all((root / path[1:]).is_file() for path in INSTALLED)
    assert os.readlink(wanted) == "/usr/lib/systemd/system/domzero-guest.service"
    wanted.unlink()
    settings.write_text("[agent]\n")
    rpm("--upgrade", "--replacepkgs", "--nodeps", package)
    assert (settings.read_text(), wanted.is_symlink()) == ("[agent]\n", False), "as its owner has it"
    wanted.symlink_to("/usr/lib/systemd/system/domzero-guest.service")
    rpm("--erase", "domzero-guest")
    assert not wanted.is_symlink()
    assert not any((root / path[1:]).exists() for path in INSTALLED)


@pytest.mark.parametrize("name", ["deb/postinst", "deb/prerm", "deb/postrm", "install.sh"])
def test_scripts_are_plain_shell(name: str) -> None:
    output("sh", "-n", ROOT / "guest/packaging" / name)
