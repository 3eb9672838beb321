"""The one exception that crosses the engine.

An `ApiError` is a documented error code and its parameters. It is turned into a wire form at the last step, in
the front room. Codes and the number of their parameters are checked against the graph by a test, not at run time.
"""

from __future__ import annotations


class ApiError(Exception):
    """A call failed with a documented code; `params` are strings in the order the datamodel names them."""

    def __init__(self, code: str, *params: str) -> None:
        super().__init__(code, *params)
        self.code = code
        self.params = params

    @property
    def description(self) -> tuple[str, ...]:
        """Code and parameters together, as `ErrorDescription` and `task.error_info` carry them."""
        return (self.code, *self.params)

    def __str__(self) -> str:
        return f"{self.code}({', '.join(self.params)})"


class UnheardError(ApiError):
    """A call was turned away without being looked at, as there are too many of its kind; nobody is told of each."""
