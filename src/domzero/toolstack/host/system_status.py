"""Reports on the system: what they may contain, `/system-status` that sends one, and a call that sends it elsewhere."""

from __future__ import annotations

import shutil
from contextlib import aclosing
from pathlib import Path
from tempfile import mkdtemp
from xml.etree import ElementTree as ET

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.exchange import Arguments, Peer, RequestError, serves
from domzero.engine.replacement import SCRATCH
from domzero.engine.sensitive import without_written_secrets
from domzero.finish import in_thread
from domzero.host.upload.protocol import UploadError, is_sendable
from domzero.idl.types import Ref
from domzero.toolstack.host.packing import PACKERS
from domzero.toolstack.host.report import ENTRIES, ENTRY_TIME, chosen, collected
from domzero.toolstack.host.streams import attachment, create
from domzero.toolstack.stack import Stack

NAME = "system-status"


@implements("host.get_system_status_capabilities")
def get_system_status_capabilities(stack: Stack, context: Context, host: Ref) -> str:
    """XML that lists the parts of a report, with the limits of their sizes and whether they tell of persons."""
    stack.database.row("host", host)
    root = ET.Element("system-status-capabilities")
    for entry in ENTRIES:
        sizes = {"min-size": "0", "max-size": str(entry.largest), "min-time": "0", "max-time": f"{ENTRY_TIME:.0f}"}
        ET.SubElement(root, "capability", {"key": entry.key, **sizes, "pii": entry.personal})
    return ET.tostring(root, encoding="unicode", xml_declaration=True)


@serves("GET", "/system-status", role="pool-operator", label="host.get_system_status")
async def system_status(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """Send the parts that `entries` names (with commas between; else all), packed as `output` says."""
    keys = [key for key in arguments.get("entries", "").split(",") if key]
    output = arguments.get("output") or next(iter(PACKERS))
    if output not in PACKERS:
        raise RequestError(400, f"output is none of {', '.join(PACKERS)}.")
    entries = chosen(keys)
    packer = PACKERS[output](int(stack.clock.now().timestamp()))
    peer.begin(200, attachment(packer.media_type, f"{NAME}.{output}"))
    with context.task.cancellable():
        async with aclosing(collected(stack, entries)) as parts:
            async for entry, name, content in parts:
                await peer.write(await in_thread(packer.add, f"{NAME}/{entry.key}/{name}", content))
                context.task.set_progress(entries.index(entry) / len(entries))
        await peer.write(await in_thread(packer.finish))


@implements("host.bugreport_upload")
async def bugreport_upload(stack: Stack, context: Context, host: Ref, url: str, options: dict[str, str]) -> None:
    """Collect a whole report and PUT it, as a tar archive, to an http or https address.

    There is no address that reports go to by themselves: an empty `url` is refused. `options["http_proxy"]` names a
    proxy. Raises INVALID_VALUE, SYSTEM_STATUS_RETRIEVAL_FAILED.
    """
    stack.database.row("host", host)
    if not is_sendable(url):
        raise ApiError("INVALID_VALUE", "url", without_written_secrets(url))
    place = Path(await in_thread(mkdtemp, prefix=SCRATCH, dir=stack.settings.state_dir))
    try:
        with context.task.cancellable():
            directory = place / "bug-report"
            directory.mkdir(mode=0o700)
            async with aclosing(collected(stack, ENTRIES)) as parts:
                async for entry, name, content in parts:
                    await in_thread(_put_down, directory / f"{entry.key}-{name}", content)
            proxy = options.get("http_proxy", "")
            await stack.upload(url, directory, proxy=proxy, progress=context.task.set_progress)
    except (OSError, UploadError) as error:
        raise ApiError("SYSTEM_STATUS_RETRIEVAL_FAILED", f"The report could not be sent: {error}.") from error
    finally:
        await in_thread(shutil.rmtree, place)


def _put_down(path: Path, content: bytes) -> None:
    with create(path) as file:
        file.write(content)
