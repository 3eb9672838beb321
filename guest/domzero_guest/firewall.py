"""The guest's own firewall: remote desktop's port is let in and kept out again. firewalld where it runs, else nftables.

nftables has no rule that wins over another table's refusal. So the port is let in by every input chain that refuses
what it does not know, after its other rules: what those refuse (addresses on a black list) stays refused.
"""

import json
import logging
import re
from typing import Any, Iterator, List, Tuple

from .commands import Run, succeeded

log = logging.getLogger(__name__)

PORT = "3389"
COMMENT = "domzero-guest"
"""How our own rules are found again."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_./\\-]{0,127}")
_FAMILIES = ("inet", "ip", "ip6")
_BESIDE_VERDICT = {"counter", "log", "drop", "reject"}


def open_port(run: Run) -> None:
    """Let the port in, now and after the next boot as far as the firewall keeps that itself."""
    if _has_firewalld(run):
        _firewalld(run, "--add-port")
        return
    ruleset = _ruleset(run)
    for command in removals(ruleset):
        succeeded(run, *command)
    for command in openings(ruleset):
        succeeded(run, *command)


def close_port(run: Run) -> None:
    """Take back what `open_port` did."""
    if _has_firewalld(run):
        _firewalld(run, "--remove-port")
        return
    for command in removals(_ruleset(run)):
        succeeded(run, *command)


def openings(ruleset: List[Any]) -> List[Tuple[str, ...]]:
    """Commands that let the port in, for the list under `nftables` that `nft --json list ruleset` prints."""
    commands = []
    rules = list(_parts(ruleset, "rule"))
    for chain in _parts(ruleset, "chain"):
        if chain.get("hook") != "input" or chain.get("type") != "filter":
            continue
        place = _place(chain, "name")
        last = [rule for rule in rules if _is_of(rule, chain)][-1:]
        refusing = [rule for rule in last if _refuses_all(rule) and isinstance(rule.get("handle"), int)]
        matching = ("tcp", "dport", PORT, "accept", "comment", '"{}"'.format(COMMENT))
        if place and refusing:
            commands.append(("nft", "insert", "rule", *place, "handle", str(refusing[0]["handle"]), *matching))
        elif place and chain.get("policy") == "drop":
            commands.append(("nft", "add", "rule", *place, *matching))
    return commands


def removals(ruleset: List[Any]) -> List[Tuple[str, ...]]:
    """Commands that take our rules out."""
    commands = []
    for rule in _parts(ruleset, "rule"):
        place = _place(rule, "chain")
        if rule.get("comment") == COMMENT and place and isinstance(rule.get("handle"), int):
            commands.append(("nft", "delete", "rule", *place, "handle", str(rule["handle"])))
    return commands


def _has_firewalld(run: Run) -> bool:
    return run(("systemctl", "is-active", "--quiet", "firewalld.service")).code == 0


def _firewalld(run: Run, option: str) -> None:
    rule = "{}={}/tcp".format(option, PORT)
    succeeded(run, "firewall-cmd", "--quiet", rule)
    succeeded(run, "firewall-cmd", "--quiet", "--permanent", rule)


def _ruleset(run: Run) -> List[Any]:
    done = run(("nft", "--json", "list", "ruleset"))
    if done.code == 127:
        return []
    try:
        listed = json.loads(done.output.decode("utf-8", "replace")).get("nftables")
    except (ValueError, AttributeError):
        log.error("what nft lists cannot be read (code %d)", done.code)
        return []
    return listed if isinstance(listed, list) else []


def _parts(ruleset: List[Any], kind: str) -> Iterator[Any]:
    for part in ruleset:
        if isinstance(part, dict) and isinstance(part.get(kind), dict):
            yield part[kind]


def _place(part: Any, chain: str) -> Tuple[str, ...]:
    """Family, table and chain, empty where one of them is none that nft would take as a word."""
    names = (part.get("family"), part.get("table"), part.get(chain))
    if names[0] not in _FAMILIES or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        return ()
    return names


def _is_of(rule: Any, chain: Any) -> bool:
    return _place(rule, "chain") == _place(chain, "name") and rule.get("comment") != COMMENT


def _refuses_all(rule: Any) -> bool:
    """Whether a rule refuses whatever comes to it."""
    parts = rule.get("expr")
    if not isinstance(parts, list) or not parts:
        return False
    keys = [next(iter(part), "") if isinstance(part, dict) else "" for part in parts]
    return keys[-1] in ("drop", "reject") and set(keys) <= _BESIDE_VERDICT
