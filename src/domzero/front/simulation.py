"""The simulator's clock and single steps, for the program under test. Only over the Unix socket.

`GET /local/simulator` shows the time and which verbs wait for a step; `POST` with `{"advance": SECONDS}` sets the clock
forward, with `{"steps": COUNT}` lets that many verbs go on. The answer is the state afterwards:
`{"now": "20110930T00:00:00Z", "waiting": [{"verb", "domid"}], "stepped": […]}`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from domzero.engine.clock import Clock, moment
from domzero.front.local_pages import json_answer, json_fields, require_local
from domzero.front.routes import Request, Response, Routes
from domzero.wire.http import HttpError

PATH = "/local/simulator"
MOST_STEPS = 10_000


class AdvancingClock(Clock, Protocol):
    """A clock that can be set forward."""

    def advance(self, seconds: float) -> None:
        """Set it forward. Raises `ValueError` for a time that is past."""
        ...


@dataclass(frozen=True, slots=True)
class Verb:
    """Something the simulated hypervisor was asked to do, and waits to be allowed."""

    name: str
    domid: int


@dataclass(frozen=True, slots=True)
class Simulation:
    """The pages. `waiting` lists the verbs held back, longest first; `step` lets the first one go on."""

    clock: AdvancingClock
    waiting: Callable[[], Sequence[Verb]]
    step: Callable[[], Verb | None]

    def add_to(self, routes: Routes) -> None:
        """Serve the pages under `PATH`."""
        routes.page("GET", PATH, self._show)
        routes.page("POST", PATH, self._move)

    async def _show(self, request: Request) -> Response:
        require_local(request)
        return self._state([])

    async def _move(self, request: Request) -> Response:
        fields = json_fields(request)
        if set(fields) not in ({"advance"}, {"steps"}):
            raise HttpError(400, "The body has either advance, in seconds, or steps.")
        if "steps" in fields:
            return self._state(self._steps(fields["steps"]))
        seconds = fields["advance"]
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise HttpError(400, "The field advance takes seconds.")
        try:
            self.clock.advance(float(seconds))
        except ValueError as error:
            raise HttpError(400, f"The clock cannot be set: {error}.") from error
        return self._state([])

    def _steps(self, count: Any) -> list[Verb]:
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_STEPS:
            raise HttpError(400, f"The field steps takes a whole number from 1 to {MOST_STEPS}.")
        released = (self.step() for _ in range(count))
        return [verb for verb in released if verb is not None]

    def _state(self, stepped: Sequence[Verb]) -> Response:
        return json_answer(
            200,
            {
                "now": moment(self.clock.now()),
                "waiting": [_shown(verb) for verb in self.waiting()],
                "stepped": [_shown(verb) for verb in stepped],
            },
        )


def _shown(verb: Verb) -> dict[str, Any]:
    return {"verb": verb.name, "domid": verb.domid}
