"""The `ova.xml` of legacy archives: `<appliance>` with elements `vm` and `vdi`, of which attributes say nearly all.

Written before XenServer 4.0, and by the tool that turned physical machines into virtual ones. Read with expat; document
types and entities are refused, depth and number of elements bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from domzero.wire.strict_xml import strict_parser
from domzero.wire.xva.model import MAX_DISKS, Appliance, ApplianceVbd, ApplianceVdi, ApplianceVm, unreadable

MAX_LEGACY_XML = 1 << 20
MAX_ELEMENTS = 20_000
MAX_TEXT = 64 << 10

_START = re.compile(rb"\s*(?:<\?xml[^>]{0,200}\?>)?\s*(?:<!--.{0,4000}?-->\s*){0,4}<appliance[\s>/]", re.DOTALL)
_DIRECTORY = re.compile(r"(?:file://)?/?([A-Za-z0-9_][A-Za-z0-9_.:-]{0,99})/?", re.ASCII)
_KNOWN = ("mem_set", "vcpus")


def is_appliance(xml: bytes) -> bool:
    """Whether an `ova.xml` looks like a legacy one."""
    return _START.match(xml[: 1 << 15].removeprefix(b"\xef\xbb\xbf")) is not None


def decode_appliance(xml: bytes) -> Appliance:
    """Read a legacy `ova.xml`. Raises `XvaError`."""
    if len(xml) > MAX_LEGACY_XML:
        raise unreadable(f"a legacy ova.xml is larger than {MAX_LEGACY_XML} bytes")
    root = _parse(xml)
    vms = tuple(_vm(element) for element in root.named("vm"))
    vdis = tuple(_vdi(element) for element in root.named("vdi"))
    if len(vdis) > MAX_DISKS or len({vdi.name for vdi in vdis}) != len(vdis):
        raise unreadable("ova.xml: two disks have the same name, or there are too many")
    known = {vdi.name for vdi in vdis}
    for vm in vms:
        for vbd in vm.vbds:
            if vbd.vdi not in known:
                raise unreadable(f"ova.xml: there is no disk {vbd.vdi[:80]!a}")
    return Appliance(root.attributes.get("version", ""), vms, vdis)


@dataclass(slots=True)
class _Element:
    name: str
    attributes: Mapping[str, str]
    children: list[_Element] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def named(self, name: str) -> Iterator[_Element]:
        return (child for child in self.children if child.name == name)

    def said(self, name: str) -> str:
        """An attribute, or else the text of a child element of that name."""
        if name in self.attributes:
            return self.attributes[name]
        return "".join("".join(child.text) for child in self.named(name)).strip()


class _Tree:
    """Handlers for expat that build elements three levels deep and pass over what is deeper or unknown."""

    def __init__(self) -> None:
        self.root: _Element | None = None
        self._stack: list[_Element] = []
        self._elements = self._text = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > MAX_ELEMENTS or len(self._stack) >= 16:
            raise unreadable("ova.xml: too many elements, or nested too deep")
        element = _Element(name, attributes)
        if self._stack:
            self._stack[-1].children.append(element)
        else:
            self.root = element
        self._stack.append(element)

    def end(self, _name: str) -> None:
        self._stack.pop()

    def characters(self, text: str) -> None:
        self._text += len(text)
        if self._text <= MAX_TEXT:
            self._stack[-1].text.append(text)


def _parse(xml: bytes) -> _Element:
    tree = _Tree()
    parser = strict_parser(tree, _refuse)
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as error:
        raise unreadable(f"ova.xml is malformed: {error}") from None
    if tree.root is None or tree.root.name != "appliance":
        raise unreadable("ova.xml is no appliance")
    return tree.root


def _refuse(text: str) -> NoReturn:
    raise unreadable(f"ova.xml: {text}")


def _vm(element: _Element) -> ApplianceVm:
    config = dict(next(element.named("config"), element).attributes)
    hacks = dict(next(element.named("hacks"), _Element("hacks", {})).attributes)
    return ApplianceVm(
        name=element.attributes.get("name", ""),
        label=element.said("label"),
        description=element.said("shortdesc"),
        memory=_number(config.get("mem_set", ""), "mem_set"),
        vcpus=_number(config.get("vcpus", "1"), "vcpus"),
        is_hvm=hacks.get("is_hvm", "").strip().lower() in ("true", "1", "yes"),
        kernel_boot_cmdline=hacks.get("kernel_boot_cmdline", ""),
        settings={name: text for name, text in config.items() if name not in _KNOWN},
        hacks=hacks,
        vbds=tuple(_vbd(child) for child in element.named("vbd")),
    )


def _vbd(element: _Element) -> ApplianceVbd:
    found = element.attributes
    return ApplianceVbd(
        device=found.get("device", ""),
        function=found.get("function", ""),
        writable=found.get("mode", "w").strip().lower() in ("rw", "w"),
        vdi=found.get("vdi", ""),
    )


def _vdi(element: _Element) -> ApplianceVdi:
    found = element.attributes
    name = found.get("name", "")
    match = _DIRECTORY.fullmatch(found.get("source", name))
    if match is None or ".." in match.group(1):
        raise unreadable(f"ova.xml: the disk {name[:80]!a} has no acceptable source")
    variety = found.get("variety", "")
    return ApplianceVdi(name, _number(found.get("size", ""), "size"), match.group(1), variety)


def _number(text: str, what: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,18}\s*", text, re.ASCII):
        raise unreadable(f"ova.xml: {what} is no number")
    return int(text)
