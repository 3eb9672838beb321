"""What each request of the wire does to the store, and the payload of its reply."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from domzero.host.xenstore.clients import Client
from domzero.host.xenstore.tree import Node
from domzero.wire import xenstore as wire
from domzero.wire.xenstore import DONE, Message, Operation, XenstoreError

log = logging.getLogger(__name__)

Answer = Callable[[Client, Message], bytes]


@dataclass(frozen=True, slots=True)
class Request:
    """One operation. `privileged` ones are domain 0's alone; `outside` ones ignore a transaction they are sent in."""

    answer: Answer
    privileged: bool = False
    outside: bool = False


def answered(client: Client, message: Message) -> bytes:
    """Do what a message asks for; the bytes of the reply to it, an error's too."""
    operation, request, transaction, _ = message
    try:
        known = REQUESTS.get(operation)
        if known is None:
            raise XenstoreError("ENOSYS")
        if known.privileged and client.domid != 0:
            raise XenstoreError("EACCES")
        if known.outside and transaction:
            message = message._replace(transaction=0)
        return wire.encode(operation, request, transaction, known.answer(client, message))
    except XenstoreError as error:
        return wire.encode(Operation.ERROR, request, transaction, error.code.encode() + b"\0")


def _path(client: Client, path: bytes) -> str:
    """A path of a request, absolute."""
    found = wire.absolute(path, client.home)
    if client.domid and len(found) > client.store.limits.path_length:
        raise XenstoreError("EINVAL")
    return found


def _read(client: Client, message: Message) -> bytes:
    return client.read(_path(client, wire.text(message.payload)), message.transaction)


def _directory(client: Client, message: Message) -> bytes:
    return _listing(client.listing(_path(client, wire.text(message.payload)), message.transaction))


def _directory_part(client: Client, message: Message) -> bytes:
    path, offset = wire.texts(message.payload, 2)
    node = client.listing(_path(client, path), message.transaction)
    begin, whole = wire.number(offset), _listing(node)
    if not 0 <= begin <= len(whole):
        raise XenstoreError("EINVAL")
    generation = b"%d\0" % node.listing
    part = whole[begin : begin + wire.PAYLOAD_MAX - len(generation) - 1]
    if begin + len(part) == len(whole):
        # An empty string says that nothing follows.
        return generation + part + b"\0"
    return generation + part[: part.rindex(b"\0") + 1]


def _listing(node: Node) -> bytes:
    return "".join([f"{name}\0" for name in node.children]).encode("ascii")


def _get_permissions(client: Client, message: Message) -> bytes:
    path = wire.text(message.payload)
    if path.startswith(b"@"):
        return wire.encode_permissions(client.store.specials[_special(client, path)])
    return wire.encode_permissions(client.permissions(_path(client, path), message.transaction))


def _special(client: Client, path: bytes) -> str:
    name = wire.special(path)
    if name not in client.store.specials:
        raise XenstoreError("EINVAL")
    return name


def _set_permissions(client: Client, message: Message) -> bytes:
    path, rest = wire.text_and_rest(message.payload)
    if not rest.endswith(b"\0"):
        raise XenstoreError("EINVAL")
    permissions = wire.decode_permissions(rest[:-1].split(b"\0"))
    if not path.startswith(b"@"):
        client.set_permissions(_path(client, path), permissions, message.transaction)
        return DONE
    if client.domid:
        raise XenstoreError("EACCES")
    client.store.set_special(_special(client, path), permissions)
    return DONE


def _write(client: Client, message: Message) -> bytes:
    path, value = wire.text_and_rest(message.payload)
    client.write(_path(client, path), value, message.transaction)
    return DONE


def _make(client: Client, message: Message) -> bytes:
    client.make(_path(client, wire.text(message.payload)), message.transaction)
    return DONE


def _remove(client: Client, message: Message) -> bytes:
    client.remove(_path(client, wire.text(message.payload)), message.transaction)
    return DONE


def _watched(client: Client, message: Message) -> tuple[str, bytes, bool]:
    path, token = wire.texts(message.payload, 2)
    if path.startswith(b"@"):
        return wire.special(path), token, False
    return _path(client, path), token, not path.startswith(b"/")


def _watch(client: Client, message: Message) -> bytes:
    client.watch(*_watched(client, message))
    return DONE


def _unwatch(client: Client, message: Message) -> bytes:
    client.unwatch(*_watched(client, message))
    return DONE


def _reset_watches(client: Client, _: Message) -> bytes:
    client.reset()
    return DONE


def _begin(client: Client, message: Message) -> bytes:
    if message.transaction:
        raise XenstoreError("EBUSY")
    return b"%d\0" % client.begin()


def _finish(client: Client, message: Message) -> bytes:
    if message.payload not in (b"T\0", b"F\0"):
        raise XenstoreError("EINVAL")
    client.finish(message.transaction, message.payload == b"T\0")
    return DONE


def _introduce(client: Client, message: Message) -> bytes:
    # The page and the event channel belong to a hypervisor that is not there.
    domid, page, channel = wire.texts(message.payload, 3)
    wire.number(page), wire.number(channel)
    client.store.introduce(wire.domain_id(domid))
    return DONE


def _domid(message: Message) -> int:
    return wire.domain_id(wire.text(message.payload))


def _release(client: Client, message: Message) -> bytes:
    client.store.release(_domid(message))
    return DONE


def _resume(client: Client, message: Message) -> bytes:
    client.store.guest(_domid(message)).shut_down = False
    return DONE


def _set_target(client: Client, message: Message) -> bytes:
    domid, target = wire.texts(message.payload, 2)
    client.store.set_target(wire.domain_id(domid), wire.domain_id(target))
    return DONE


def _domain_path(_: Client, message: Message) -> bytes:
    return wire.home(_domid(message)).encode() + b"\0"


def _is_introduced(client: Client, message: Message) -> bytes:
    return b"T\0" if _domid(message) in client.store.domains else b"F\0"


def _control(client: Client, message: Message) -> bytes:
    command, rest = wire.text_and_rest(message.payload)
    store = client.store
    match command:
        case b"help":
            return b"check help print quota\0"
        case b"check":
            return DONE if store.check() else b"what is counted differs from the tree\0"
        case b"print":
            log.info("xenstore: %r", rest.rstrip(b"\0"))
            return DONE
        case b"quota":
            if not rest:
                fields = store.limits.__slots__
                return "\n".join(f"{name}: {getattr(store.limits, name):g}" for name in fields).encode() + b"\0"
            domid = wire.domain_id(wire.text(rest))
            domain = store.guest(domid)
            owned = store.holdings.owned(domid)
            return f"nodes: {owned}\nwatches: {domain.watches}\ntransactions: {domain.transactions}\0".encode()
    raise XenstoreError("EINVAL")


REQUESTS: Mapping[int, Request] = {
    Operation.CONTROL: Request(_control, privileged=True, outside=True),
    Operation.DIRECTORY: Request(_directory),
    Operation.READ: Request(_read),
    Operation.GET_PERMS: Request(_get_permissions),
    Operation.WATCH: Request(_watch, outside=True),
    Operation.UNWATCH: Request(_unwatch, outside=True),
    Operation.TRANSACTION_START: Request(_begin),
    Operation.TRANSACTION_END: Request(_finish),
    Operation.INTRODUCE: Request(_introduce, privileged=True, outside=True),
    Operation.RELEASE: Request(_release, privileged=True, outside=True),
    Operation.GET_DOMAIN_PATH: Request(_domain_path, outside=True),
    Operation.WRITE: Request(_write),
    Operation.MKDIR: Request(_make),
    Operation.RM: Request(_remove),
    Operation.SET_PERMS: Request(_set_permissions),
    Operation.IS_DOMAIN_INTRODUCED: Request(_is_introduced, outside=True),
    Operation.RESUME: Request(_resume, privileged=True, outside=True),
    Operation.SET_TARGET: Request(_set_target, privileged=True, outside=True),
    Operation.RESET_WATCHES: Request(_reset_watches, outside=True),
    Operation.DIRECTORY_PART: Request(_directory_part),
}
