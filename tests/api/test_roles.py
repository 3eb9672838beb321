"""Every message is tried under every role: what a role may not do is refused before anything else is looked at."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from domzero.datamodel.graph import GRAPH
from tests.api.harness import PASSWORD, InProcessHost, login, plain_proxy
from tests.sampling import SOME_OR_ALL


@pytest.mark.parametrize("step", SOME_OR_ALL)
@pytest.mark.parametrize("role", sorted(GRAPH.roles))
def test_every_message_under_a_role(host: InProcessHost, role: str, step: int) -> None:
    name = f"user-{role}-{step}"
    host.run(host.daemon.engine.users.add(name, PASSWORD, role))
    session: Any = login(host.url, name)
    proxy = plain_proxy(host.url)
    rank = GRAPH.roles[role].rank
    assert ("vm.start" in session.xenapi.session.get_rbac_permissions(session.handle)) == (rank >= 1)
    for method in islice(GRAPH.methods.values(), 0, None, step):
        if not method.message.session:
            continue
        answer = getattr(proxy, method.name)(session.handle, *["surplus"] * 25)
        refused = answer["ErrorDescription"][0] == "RBAC_PERMISSION_DENIED"
        assert refused == (rank < GRAPH.roles[method.message.least_role].rank), method.name
