import json
from datetime import UTC, datetime

import httpx
import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from typer.testing import CliRunner

from contracts.envelope import Recorded
from contracts.registry import AdapterPromoted, AdapterWithdrawn, CandidateRegistered
from contracts.serving import ServedAdapter
from contracts.subjects import RunRef
from services.cli.main import app as sluice
from services.serving.directory import Target
from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.keys import Keys
from services.serving.residency import Residency
from shared.metrics import Residents, provider
from tests.serving.live_server import Server

TREES = {name: "sha256:" + digit * 64 for name, digit in (("a", "1"), ("b", "2"), ("c", "3"))}
IDS = {name: f"tiny-task_{name}-v1" for name in TREES}
OWNERS = {"a": "acme", "b": "acme", "c": "globex"}


def registered(name, seq):
    return fact(
        name,
        seq,
        CandidateRegistered(
            adapter_id=IDS[name], adapter=TREES[name], card=TREES[name], deployment=f"bot_{name}"
        ),
    )


def promoted(name):
    return AdapterPromoted(adapter_id=IDS[name], deployment=f"bot_{name}", bundle=TREES[name])


def fact(name, seq, event):
    return Recorded(
        id=str(seq),
        ref=RunRef(OWNERS[name], f"run_{name}"),
        event=event,
        cause="",
        seq=seq,
        at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.fixture(scope="module")
def small(base):
    engine = LlamaEngine(base, EngineConfig(slots=2, max_adapters=2, max_lora_rank=4))
    yield engine
    engine.close()


@pytest.fixture
def registry(small, adapter_folders):
    """A server with three promoted adapters; `b` has rank 8, above the engine's maximum."""
    for info in small.adapters():
        small.unload_adapter(info.digest)
    folders = {TREES[name]: adapter_folders[name] for name in TREES}
    with Server(small, folders.__getitem__) as server:
        for seq, name in enumerate(TREES, 1):
            server.directory.apply(registered(name, seq))
            server.directory.apply(fact(name, seq + 20, promoted(name)))
        yield server


def get(server, key="sk-acme"):
    answer = httpx.get(f"{server.url}/v1/adapters", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200
    return {adapter["id"]: adapter for adapter in answer.json()["data"]}


def change(server, what, name, key="sk-service.acme"):
    return server.post(f"/v1/adapters/{IDS.get(name, name)}/{what}", key=key)


@pytest.mark.req("V8")
def test_an_adapter_is_loaded_pinned_unpinned_and_unloaded_over_http(registry, small):
    assert not any(adapter["resident"] for adapter in get(registry).values())
    assert change(registry, "load", "a").status_code == 200
    seen = get(registry)[IDS["a"]]
    assert (seen["resident"], seen["rank"], seen["tier"], seen["pinned"]) == (
        True,
        4,
        "pool",
        False,
    )
    assert seen["bytes"] == small.adapters()[0].bytes > 0
    assert seen["deployments"] == ["bot_a"]
    assert change(registry, "pin", "a").json()["pinned"]
    assert not change(registry, "unpin", "a").json()["pinned"]
    assert not change(registry, "unload", "a").json()["resident"]
    assert small.adapters() == ()


@pytest.mark.req("V8")
def test_a_pinned_adapter_stays_when_others_need_its_room(base, adapter_folders):
    engine = LlamaEngine(base, EngineConfig(slots=1, max_adapters=2))
    try:
        first, second, third = (engine.load_adapter(adapter_folders[n]).digest for n in "abc")
        assert {info.digest for info in engine.adapters()} == {second, third}
        engine.pin_adapter(second, True)
        engine.load_adapter(adapter_folders["a"])
        engine.load_adapter(adapter_folders["c"])
        assert {info.digest: info.pinned for info in engine.adapters()} == {
            second: True,
            third: False,
        }
        engine.pin_adapter(second, False)
        engine.load_adapter(adapter_folders["a"])
        assert {info.digest for info in engine.adapters()} == {third, first}
    finally:
        engine.close()


@pytest.mark.req("V5")
@pytest.mark.parametrize("what", ["load", "unload", "pin", "unpin"])
def test_another_tenants_adapter_looks_to_an_administrator_as_if_it_did_not_exist(registry, what):
    assert set(get(registry)) == {IDS["a"], IDS["b"]}
    assert set(get(registry, "sk-globex")) == {IDS["c"]}
    foreign = change(registry, what, "c")
    nowhere = change(registry, what, "tiny-nowhere-v1")
    assert (foreign.status_code, nowhere.status_code) == (404, 404)
    assert foreign.text.replace(IDS["c"], "tiny-nowhere-v1") == nowhere.text


@pytest.mark.req("V5")
@pytest.mark.parametrize("what", ["load", "unload", "pin", "unpin"])
def test_a_client_key_may_look_but_not_touch(registry, what):
    refused = change(registry, what, "a", key="sk-acme")
    assert refused.status_code == 403
    assert "service key" in refused.json()["error"]["mend"]
    assert not get(registry)[IDS["a"]]["resident"]


def test_a_tenant_may_be_made_administrator_of_its_own_adapters():
    keys = Keys("secret", lambda: {"acme": "k1", "globex": "k2"}, administrators=["acme"])
    assert [("administer" in keys.caller(key).scopes) for key in ("k1", "k2")] == [True, False]


@pytest.mark.req("V4")
def test_a_rank_above_the_maximum_is_refused_with_what_mends_it(registry):
    refused = change(registry, "load", "b")
    asked = registry.post("/v1/completions", model=IDS["b"], prompt="hi", max_tokens=1)
    for answer in (refused, asked):
        assert answer.status_code == 422
        assert "rank 8 is above max_lora_rank 4" in answer.json()["error"]["message"]
        assert "SLUICE_SERVING_MAX_LORA_RANK" in answer.json()["error"]["mend"]


def test_vllms_route_names_work_and_a_path_in_a_request_is_refused(registry, adapter_folders):
    ask = {"lora_name": IDS["a"], "lora_path": str(adapter_folders["a"])}
    admin = {"key": "sk-service.acme"}
    assert registry.post("/v1/load_lora_adapter", **admin, **ask).status_code == 400
    assert not get(registry)[IDS["a"]]["resident"]
    assert registry.post("/v1/load_lora_adapter", **admin, lora_name=IDS["a"]).json()["resident"]
    answer = registry.post("/v1/unload_lora_adapter", **admin, lora_name=IDS["a"])
    assert not answer.json()["resident"]


@pytest.mark.req("V6")
def test_several_adapters_on_one_answer_are_refused_by_policy_and_mended_by_a_merge(registry):
    stack = f"{IDS['a']}+{IDS['b']}"
    refused = registry.post("/v1/completions", model=stack, prompt="hi", max_tokens=1)
    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "stacking_refused"
    assert "sluice merge" in refused.json()["error"]["mend"]
    foreign = f"{IDS['a']}+{IDS['c']}"
    unknown = registry.post("/v1/completions", model=foreign, prompt="hi", max_tokens=1)
    assert unknown.status_code == 404


def test_a_withdrawn_adapter_is_listed_no_more_and_cannot_be_loaded(registry):
    event = AdapterWithdrawn(
        adapter_id=IDS["a"],
        adapter=TREES["a"],
        deployment="bot_a",
        to="base",
        kind="revoked",
        reason="its data may no longer be used",
        revocation=TREES["a"],
    )
    registry.directory.apply(fact("a", 99, event))
    assert set(get(registry)) == {IDS["b"]}
    assert change(registry, "load", "a").status_code == 404


def test_metrics_say_what_is_resident_with_its_bytes_and_rank():
    adapter = ServedAdapter(
        id=IDS["a"],
        tenant="acme",
        adapter=TREES["a"],
        resident=True,
        pinned=True,
        tier="pool",
        rank=4,
        bytes=1234,
    )
    reader = InMemoryMetricReader()
    made = provider("serving", [reader])
    Residents(lambda: [adapter], made.get_meter("test"))
    found = {
        metric.name: metric.data.data_points[0]
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    made.shutdown()
    assert found["sluice.adapter.size"].value == 1234
    assert found["sluice.adapter.rank"].value == 4
    assert found["sluice.adapters.resident"].value == 1
    assert found["sluice.adapter.size"].attributes["gen_ai.response.model"] == IDS["a"]


def test_the_command_line_lists_and_changes_what_is_loaded(registry, monkeypatch, tmp_path):
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    monkeypatch.setenv("SLUICE_SERVING_URL", f"{registry.url}/v1")
    monkeypatch.setenv("SLUICE_SERVICE_KEY", "sk-service")

    def run(*words):
        done = CliRunner().invoke(sluice, [*words])
        return done.exit_code, done.stdout, done.stderr

    code, out, _ = run("adapters", "--tenant", "acme", "--json")
    assert code == 0
    assert [json.loads(line)["resident"] for line in out.splitlines()] == [False, False]
    assert run("adapters", "pin", IDS["a"], "--tenant", "acme")[0] == 0
    _, out, _ = run("adapters", "--tenant", "acme")
    assert "pool, pinned" in out
    code, _, err = run("adapters", "load", IDS["b"], "--tenant", "acme")
    assert code == 1
    assert "mend: train with r <= 4" in err
    registry.__exit__()
    monkeypatch.setenv("SLUICE_SERVING_URL", "http://127.0.0.1:9/v1")
    code, _, err = run("adapters")
    assert code == 69
    assert "sluice up" in err


class Crowded:
    """The engine, whose adapters make room for others just before anything is done to them."""

    def __init__(self, engine, times):
        self.engine = engine
        self.times = times

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def pin_adapter(self, digest, pinned):
        self._crowd(digest)
        self.engine.pin_adapter(digest, pinned)

    def unload_adapter(self, digest):
        self._crowd(digest)
        self.engine.unload_adapter(digest)

    def _crowd(self, digest):
        if self.times:
            self.times -= 1
            self.engine.unload_adapter(digest)


@pytest.mark.parametrize("what", ["pin", "unpin", "unload"])
async def test_an_adapter_that_leaves_just_before_a_change_is_no_error(
    what, small, adapter_folders
):
    target = Target(model=IDS["a"], adapter=TREES["a"])
    crowded = Crowded(small, times=0)
    residency = Residency(crowded, lambda _: adapter_folders["a"])
    await residency.load(target)
    crowded.times = 1
    await getattr(residency, what)(target)
    assert crowded.times == 0
    found = residency.find(TREES["a"])
    assert (found is not None and found.pinned) == (what == "pin")
    await residency.unpin(target)
    await residency.unload(target)
