"""VCPU hot-plug: `cpu/N/availability` says which processors the guest is to use."""

import os
import re
from typing import Dict, Iterable, List, Tuple

STATES = {b"online": "1", b"offline": "0"}
MOST = 1024
_NUMBER = re.compile(r"0|[1-9][0-9]{0,3}")


def numbers(names: Iterable[str]) -> List[int]:
    """The processors that the host speaks of, of what it lists."""
    return sorted(int(name) for name in names if _NUMBER.fullmatch(name))[:MOST]


def online_file(root: str, number: int) -> str:
    """Where the kernel takes it; the first processor usually has none, as it cannot be taken out."""
    return os.path.join(root, "sys/devices/system/cpu/cpu{}/online".format(number))


def can_change(root: str) -> bool:
    """Whether the kernel can switch processors, of which there may be one so far that cannot itself be switched."""
    if os.path.isdir(os.path.join(root, "sys/devices/system/cpu/hotplug")):
        return True
    names = _listed(os.path.join(root, "sys/devices/system/cpu"))
    found = [int(name[3:]) for name in names if re.fullmatch(r"cpu[0-9]{1,4}", name)]
    return any(os.path.exists(online_file(root, number)) for number in found)


def changes(root: str, availability: Dict[int, bytes]) -> List[Tuple[str, str]]:
    """Files to write, and what. Processors that are not there (yet) are left out, and so is a value with no meaning."""
    wanted = []
    for number, value in sorted(availability.items()):
        state = STATES.get(value)
        path = online_file(root, number)
        if state is not None and _says(path) not in ("", state):
            wanted.append((path, state))
    return wanted


def are_settled(root: str, availability: Dict[int, bytes]) -> bool:
    """Whether all processors are as they are to be.

    One that is to be used may not have been plugged in yet; the kernel shows it a moment before the file that switches
    it, and may fail to wake it where the host is busy. The first one, which has no such file, is on.
    """
    if changes(root, availability):
        return False
    return all(
        _says(online_file(root, number)) == "1"
        for number, value in availability.items()
        if number and value == b"online"
    )


def _listed(directory: str) -> List[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _says(path: str) -> str:
    try:
        with open(path) as file:
            return file.read(8).strip()
    except OSError:
        return ""
