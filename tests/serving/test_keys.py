from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.serving.keys import Caller, Keys
from shared.keys import client_keys, service_key, service_secret
from shared.settings import Settings

CLIENTS = {"acme": "slk-acme"}


@pytest.mark.req("V5")
@pytest.mark.parametrize(
    ("key", "caller"),
    [
        pytest.param("slk-acme", Caller("acme", frozenset({"serve"})), id="client"),
        pytest.param(
            "secret.acme",
            Caller("acme", frozenset({"serve", "evaluate", "administer"})),
            id="platform",
        ),
        pytest.param("secret", None, id="platform-without-tenant"),
        pytest.param("secret.*", None, id="wildcard-tenant"),
        pytest.param("secret.acme.>", None, id="subject-in-tenant"),
        pytest.param("slk-other", None, id="unknown"),
        pytest.param("", None, id="empty"),
    ],
)
def test_a_key_names_its_tenant_and_scopes(key: str, caller: Caller | None) -> None:
    assert Keys("secret", lambda: CLIENTS).caller(key) == caller


def test_a_key_added_later_is_found_without_a_restart() -> None:
    clients = dict(CLIENTS)
    keys = Keys("secret", lambda: clients)
    clients["globex"] = "slk-globex"
    assert keys.caller("slk-globex") == Caller("globex", frozenset({"serve"}))


def test_racing_processes_agree_on_one_secret_that_only_the_owner_reads(tmp_path) -> None:
    settings = Settings(home=tmp_path)
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: service_secret(settings), range(32)))
    assert len(secrets) == 1
    path = tmp_path / "keys" / "service.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert service_key(settings, "acme") == f"{secrets.pop()}.acme"


def test_a_tenant_keeps_its_client_key_when_another_joins(tmp_path) -> None:
    settings = Settings(home=tmp_path)
    first = client_keys(settings, "acme")
    both = client_keys(settings, "acme", "globex")
    assert both["acme"] == first["acme"]
    assert both.keys() == {"acme", "globex"}
    assert json.loads((tmp_path / "keys" / "client.json").read_text()) == both
    assert stat.S_IMODE((tmp_path / "keys" / "client.json").stat().st_mode) == 0o600
