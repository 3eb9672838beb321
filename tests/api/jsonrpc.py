"""A JSON-RPC client for tests."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from tests.api.trust import unverified


class JsonRpc:
    """A JSON-RPC client of a few lines, as browsers have them."""

    def __init__(self, url: str, version: int = 2) -> None:
        self._url = f"{url}/jsonrpc"
        self._version = version
        self._context = unverified()
        self.content_type = ""

    def raw(self, method: str, *params: Any) -> Any:
        call: dict[str, Any] = {"method": method, "params": params, "id": 7}
        if self._version == 2:
            call["jsonrpc"] = "2.0"
        request = urllib.request.Request(self._url, json.dumps(call).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, context=self._context, timeout=60) as response:
            self.content_type = response.headers["Content-Type"]
            return json.load(response)

    def call(self, method: str, *params: Any) -> Any:
        answer = self.raw(method, *params)
        assert answer["id"] == 7
        assert "error" not in answer or answer["error"] is None, answer
        return answer["result"]
