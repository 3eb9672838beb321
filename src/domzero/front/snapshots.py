"""`/vncsnapshot`: a picture of a machine's screen, as JPEG or, for those who ask for it, PNG."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from io import BytesIO

from domzero.engine.audit import StreamCall
from domzero.front.access import Access
from domzero.front.consoles import SERIAL, Consoles, Line, Place, console_name
from domzero.front.routes import Request, Response, Routes
from domzero.wire.http import HttpError
from domzero.wire.rfb import RfbError
from domzero.wire.rfb_picture import Picture

PATH = "/vncsnapshot"
PHOTOGRAPHING = StreamCall(f"GET {PATH}", "console")
"""What the audit calls it."""
AT_ONCE = 4
"""Pictures that are made at the same time; whoever asks for more waits."""
QUALITY = 85
"""Of JPEG, where 95 is best."""


class Snapshots:
    """The page. `take` makes a picture of the screen at the other end of a line."""

    def __init__(self, access: Access, consoles: Consoles, take: Callable[[Line], Awaitable[Picture]]) -> None:
        self._access = access
        self._consoles = consoles
        self._take = take
        self._room = asyncio.Semaphore(AT_ONCE)

    def add_to(self, routes: Routes) -> None:
        """Serve it under `PATH`."""
        routes.page("GET", PATH, self._show)

    async def _show(self, request: Request) -> Response:
        name = console_name(request.head)
        async with self._access.caller(request, "vncsnapshot") as caller:
            place = await self._consoles.admitted(name, caller, request.origin, PHOTOGRAPHING)
            if place.protocol == SERIAL:
                raise HttpError(404, "The console has no screen.")
            async with self._room:
                picture = await self._picture(place)
                form, kind = ("PNG", "image/png") if _wants_png(request) else ("JPEG", "image/jpeg")
                return Response(200, await asyncio.to_thread(encoded, picture, form), (("content-type", kind),))

    async def _picture(self, place: Place) -> Picture:
        line = await self._consoles.open(place)
        try:
            return await self._take(line)
        except TimeoutError:
            raise HttpError(503, "The screen did not show itself in time.") from None
        except (OSError, RfbError) as error:
            raise HttpError(404, "The machine's screen does not answer; it may have just ended.") from error
        finally:
            line.close()


def encoded(picture: Picture, form: str) -> bytes:
    """The picture in a format that Pillow names. Takes its time."""
    # A large library that a host whose screens nobody photographs does without.
    from PIL import Image

    file = BytesIO()
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.pixels, "raw", "RGBX")
    image.save(file, form, quality=QUALITY)
    return file.getvalue()


def _wants_png(request: Request) -> bool:
    return (request.head.header("accept") or "").strip().lower().startswith("image/png")
