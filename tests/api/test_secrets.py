"""Secrets: kept for those who may manage storage, and shown to nobody else, by no way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import XenAPI

from tests.api.harness import PASSWORD, InProcessHost, login

VALUE = "open sesame"


@pytest.fixture
def secret(api: Any) -> Any:
    return api.secret.create({"value": VALUE, "other_config": {}})


def test_a_secret_is_kept_and_changed_and_removed(api: Any, secret: Any) -> None:
    uuid = api.secret.get_uuid(secret)
    assert api.secret.get_by_uuid(uuid) == secret
    assert api.secret.get_record(secret) == {"uuid": uuid, "value": VALUE, "other_config": {}}
    api.secret.set_value(secret, "another")
    assert api.secret.get_value(secret) == "another"
    api.secret.destroy(secret)
    with pytest.raises(XenAPI.Failure) as failure:
        api.secret.get_value(secret)
    assert failure.value.details == ["HANDLE_INVALID", "secret", secret]


@pytest.mark.parametrize("role", ["read-only", "vm-power-admin", "pool-operator"])
def test_roles(host: InProcessHost, secret: Any, role: str) -> None:
    host.run(host.daemon.engine.users.add(f"secret-{role}", PASSWORD, role))
    api = login(host.url, f"secret-{role}").xenapi
    calls: dict[str, Callable[[], Any]] = {
        "get_value": lambda: api.secret.get_value(secret),
        "get_record": lambda: api.secret.get_record(secret),
        "get_all_records": lambda: api.secret.get_all_records(),
        "get_all_records_where": lambda: api.secret.get_all_records_where(f'field "value" = "{VALUE}"'),
        "set_value": lambda: api.secret.set_value(secret, VALUE),
        "create": lambda: api.secret.create({"value": "mine", "other_config": {}}),
    }
    if role == "pool-operator":
        answers = [call() for call in calls.values()]
        assert answers[0] == VALUE
        return
    for call in calls.values():
        with pytest.raises(XenAPI.Failure) as failure:
            call()
        assert failure.value.details[0] == "RBAC_PERMISSION_DENIED"
        assert VALUE not in repr(failure.value.details)


def test_a_secret_is_in_no_event_and_no_task(api: Any) -> None:
    made = api.secret.create({"value": VALUE, "other_config": {}})
    task = api.Async.secret.create({"value": VALUE, "other_config": {}})
    assert task in api.task.get_all()
    events = repr(api.event_from(["*"], "", 0.0))
    assert VALUE not in events
    assert made not in events
    assert VALUE not in repr(api.task.get_all_records())


def test_a_secret_is_not_in_the_log(host: InProcessHost, api: Any, secret: Any) -> None:
    api.secret.set_value(secret, VALUE + "!")
    state = host.settings.state_dir
    assert state is not None
    logs = [path.read_text() for path in (state / "log").iterdir() if path.is_file()]
    assert all(VALUE not in text for text in logs)
