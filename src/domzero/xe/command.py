"""Commands as rows: name, parameters, what it does, and what must be there for it to exist."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from domzero.xe.talk import Talk

Run: TypeAlias = Callable[[Talk], Awaitable[None]]

SELECTORS = {"vm": "<vm-selectors>", "host": "<host-selectors>", "sr": "<sr-selectors>"}


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `common` ones are in the short list of the help, `hidden` ones in none.

    `needs` are the messages and `pages` the doors (`"PUT /import"`) without which it does not exist; `files` the
    parameters that name files of the client; `selector` tells that it works on objects chosen by filters. A command
    with a `session` is carried out once its caller is logged in.
    `arity` is how many parameters it gives to its one message, where it is that simple.
    """

    name: str
    doc: str
    run: Run
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()
    selector: str = ""
    common: bool = False
    hidden: bool = False
    session: bool = True
    arity: int | None = None

    @property
    def own(self) -> frozenset[str]:
        """Every parameter of its own; others are filters where it has selectors."""
        return frozenset((*self.required, *self.optional))

    def help(self) -> str:
        """What `xe help COMMAND` says; the layout is read by completion scripts."""
        optional = [*self.optional, *([SELECTORS[self.selector]] if self.selector else [])]
        return (
            f"command name        : {self.name}\n"
            f"        reqd params     : {', '.join(self.required)}\n"
            f"        optional params : {', '.join(optional)}\n"
            f"        description     : {self.doc}\n"
        )
