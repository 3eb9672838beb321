"""Indexes of packages are read as Debian writes them, and what a package needs is found."""

from __future__ import annotations

from tests.debian.packages import index, names, needed, source, stanzas, written

INDEX = """\
Package: editor-a
Version: 1.2-3
Depends: libc (>= 2.41), virtual-terminal | terminal-b, helper:any
Pre-Depends: dpkg
Description: an editor
 with a second line

Package: libc
Source: glibc (2.41-1)
Version: 2.41-1+b1

Package: terminal-a
Version: 1
Provides: virtual-terminal (= 1)
Depends: libc

Package: terminal-b
Version: 1
Provides: virtual-terminal

Package: helper
Version: 1
Depends: editor-a

Package: dpkg
Version: 1
"""


def chosen(*wanted: str, present: tuple[str, ...] = (), all_providers: bool = False) -> set[str]:
    packages = needed(index(stanzas(INDEX)), wanted, present, all_providers=all_providers)
    return {package["Package"] for package in packages}


def test_stanzas_are_read_with_their_further_lines_and_written_as_they_were() -> None:
    packages = stanzas(INDEX)
    assert [package["Package"] for package in packages] == [
        "editor-a", "libc", "terminal-a", "terminal-b", "helper", "dpkg",
    ]  # fmt: skip
    assert packages[0]["Description"] == "an editor\n with a second line"
    assert written(packages) == INDEX + "\n"


def test_relations_are_read_without_versions_and_architectures() -> None:
    assert names("a (>= 1:2~), b:any | c [amd64] | d <!nocheck>,e") == [["a"], ["b", "c", "d"], ["e"]]
    assert names("") == []


def test_the_source_is_the_package_itself_where_nothing_else_is_said() -> None:
    editor, libc = stanzas(INDEX)[:2]
    assert (source(editor), source(libc)) == ("editor-a", "glibc")


def test_everything_that_is_needed_is_found_once_even_in_circles() -> None:
    assert chosen("editor-a") == {"editor-a", "libc", "terminal-a", "helper", "dpkg"}
    assert chosen("helper", all_providers=True) == {"editor-a", "libc", "terminal-a", "terminal-b", "helper", "dpkg"}


def test_what_is_present_needs_nothing_more() -> None:
    assert chosen("editor-a", present=("virtual-terminal", "libc", "dpkg")) == {"editor-a", "helper"}


def test_an_alternative_that_is_there_is_preferred_to_one_that_nobody_has() -> None:
    packages = index(stanzas("Package: a\nVersion: 1\nDepends: gone | b\n\nPackage: b\nVersion: 1\n"))
    assert {package["Package"] for package in needed(packages, ["a", "unknown"])} == {"a", "b"}
