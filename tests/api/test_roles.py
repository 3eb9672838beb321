"""Every message is tried under every role: what a role may not do is refused before anything else is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from domzero.datamodel.graph import GRAPH
from tests.api.harness import PASSWORD, InProcessHost, login, plain_proxy


@pytest.mark.parametrize("role", sorted(GRAPH.roles))
def test_every_message_under_a_role(host: InProcessHost, role: str) -> None:
    name = f"user-{role}"
    host.run(host.daemon.engine.users.add(name, PASSWORD, role))
    session: Any = login(host.url, name)
    proxy = plain_proxy(host.url)
    rank = GRAPH.roles[role].rank
    assert ("vm.start" in session.xenapi.session.get_rbac_permissions(session.handle)) == (rank >= 1)
    for method in GRAPH.methods.values():
        if not method.message.session:
            continue
        answer = getattr(proxy, method.name)(session.handle, *["surplus"] * 25)
        refused = answer["ErrorDescription"][0] == "RBAC_PERMISSION_DENIED"
        assert refused == (rank < GRAPH.roles[method.message.least_role].rank), method.name
