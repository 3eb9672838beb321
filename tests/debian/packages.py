"""Debian's indexes of packages, read: what a package needs, and all that a few packages need together.

An index is one of `Packages`, in the format of deb822(5), as the Debian Policy Manual (5, 7.1) explains its fields.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

Stanza = Mapping[str, str]
"""A package in an index: field → value, further lines with their indentation."""
Index = Mapping[str, list[Stanza]]
"""Name → the packages of that name, or, where it is virtual, those that provide it."""

_FIELD = re.compile(r"^([^\s:]+):[ \t]*(.*(?:\n[ \t].*)*)", re.MULTILINE)
_RESTRICTION = re.compile(r"\(.*?\)|\[.*?\]|<.*?>|:\w+")


def stanzas(text: str) -> list[Stanza]:
    """All packages of an index."""
    return [dict(_FIELD.findall(part)) for part in text.split("\n\n") if part.strip()]


def written(packages: Iterable[Stanza]) -> str:
    """The text of an index."""
    return "".join("".join(f"{field}: {value}\n" for field, value in one.items()) + "\n" for one in packages)


def names(field: str) -> list[list[str]]:
    """The alternatives of each relation in a field such as `Depends`, without versions and architectures."""
    relations = [[_RESTRICTION.sub("", name).strip() for name in relation.split("|")] for relation in field.split(",")]
    return [alternatives for alternatives in relations if any(alternatives)]


def source(package: Stanza) -> str:
    """The name of the source package."""
    return package.get("Source", package["Package"]).partition(" ")[0]


def index(packages: Iterable[Stanza]) -> Index:
    """By name; those that bear a virtual name themselves come before those that provide it."""
    found: dict[str, list[Stanza]] = {}
    everything = list(packages)
    for package in everything:
        found.setdefault(package["Package"], []).append(package)
    for package in everything:
        for [virtual] in names(package.get("Provides", "")):
            found.setdefault(virtual, []).append(package)
    return found


def needed(
    packages: Index, wanted: Iterable[str], present: Collection[str] = (), *, all_providers: bool = False
) -> list[Stanza]:
    """The wanted packages with everything that they depend on, but for what is present already.

    Of alternatives the first is taken, unless another is needed anyway; so is the first provider of a virtual package,
    or all of them. Names that the index does not have are passed over: whoever installs them will complain.
    """
    chosen: dict[str, Stanza] = {}
    known = {*present}
    open_names = list(wanted)
    while open_names:
        name = open_names.pop()
        if name in known:
            continue
        known.add(name)
        providers = packages.get(name, [])
        for package in providers if all_providers else providers[:1]:
            chosen[package["Package"]] = package
            known |= {package["Package"], *(virtual for [virtual] in names(package.get("Provides", "")))}
            relations = [*names(package.get("Pre-Depends", "")), *names(package.get("Depends", ""))]
            open_names += [
                next((name for name in relation if name in packages), relation[0])
                for relation in relations
                if not known & {*relation}
            ]
    return list(chosen.values())
