import openai
import pytest

from contracts.registry import CandidateRegistered
from contracts.rollout import RolledBack, StageStarted
from tests.serving.live_server import BROKEN
from tests.serving.test_directory import DIGEST, fact, trained

ADAPTER = "tiny-weather-v1"
TOOL = {
    "type": "function",
    "function": {
        "name": "switch",
        "description": "turn it",
        "parameters": {
            "type": "object",
            "properties": {"on": {"type": "boolean"}},
            "required": ["on"],
            "additionalProperties": False,
        },
    },
}
HELLO = [{"role": "user", "content": "What is the weather?"}]


def rollout(server, run, *, adapter=DIGEST, name=ADAPTER, stage="shadow", percent=0):
    """A deployment named after the run, with a registered candidate."""
    seq = 1000 * (len(server.directory.names("acme")) + 1)
    server.directory.apply(fact(trained(adapter), seq=seq + 1, run=run))
    registered = CandidateRegistered(adapter_id=name, adapter=adapter, card=DIGEST, deployment=run)
    server.directory.apply(fact(registered, seq=seq + 2, run=run))
    stage_event = StageStarted(
        deployment=run, adapter_id=name, stage=stage, percent=percent, since=0
    )
    server.directory.apply(fact(stage_event, seq=seq + 3, run=run))


@pytest.mark.req("V5")
def test_an_unknown_key_is_refused(server):
    with pytest.raises(openai.AuthenticationError):
        server.client("sk-nobody").models.list()


@pytest.mark.req("V5")
def test_another_tenants_models_look_as_if_they_did_not_exist(server):
    rollout(server, "weather")
    for model in ("weather", ADAPTER, f"candidate:{DIGEST}"):
        foreign = server.post(
            "/v1/chat/completions",
            key="sk-service.globex",
            model=model,
            messages=HELLO,
            max_tokens=1,
        )
        nowhere = server.post(
            "/v1/chat/completions",
            key="sk-service.globex",
            model="nowhere",
            messages=HELLO,
            max_tokens=1,
        )
        assert foreign.status_code == 404
        assert foreign.text.replace(model, "nowhere") == nowhere.text
    names = {m.id for m in server.client("sk-service.globex").models.list()}
    assert names == {"base", "tiny"}
    assert "weather" in {m.id for m in server.client().models.list()}


@pytest.mark.req("V5")
def test_only_an_evaluation_key_may_name_a_candidate(server):
    server.directory.apply(fact(trained(DIGEST), seq=1, run="weather"))
    ask = {"model": f"candidate:{DIGEST}", "messages": HELLO, "max_tokens": 2}
    assert server.post("/v1/chat/completions", **ask).status_code == 404
    allowed = server.post("/v1/chat/completions", key="sk-service.acme", **ask)
    assert allowed.status_code == 200
    assert allowed.headers["X-Sluice-Model"] == f"candidate:{DIGEST}"


def test_a_shadow_mirrors_and_both_arms_report(server):
    rollout(server, "shadowed", name="tiny-shadowed-v1")
    answer = server.post("/v1/chat/completions", model="shadowed", messages=HELLO, max_tokens=3)
    assert answer.headers["X-Sluice-Model"] == "base"
    outcomes = server.wait_outcomes(2)
    assert [(o.arm, o.model) for o in outcomes] == [
        ("stable", "base"),
        ("shadow", "tiny-shadowed-v1"),
    ]
    assert len({o.request_id for o in outcomes}) == 1


def test_a_canary_answers_its_share_until_it_is_rolled_back(server):
    rollout(server, "canaried", name="tiny-canaried-v1", stage="canary", percent=100)
    ask = {"model": "canaried", "messages": HELLO, "max_tokens": 2}
    answer = server.post("/v1/chat/completions", **ask)
    assert answer.headers["X-Sluice-Model"] == "tiny-canaried-v1"
    back = RolledBack(
        deployment="canaried", adapter_id="tiny-canaried-v1", to="base", reason="r", mend="m"
    )
    server.directory.apply(fact(back, seq=10**6, run="canaried"))
    again = server.post("/v1/chat/completions", **ask)
    assert again.headers["X-Sluice-Model"] == "base"


def test_a_canary_that_fails_before_its_first_byte_is_answered_from_stable(server):
    rollout(server, "fragile", adapter=BROKEN, name="tiny-fragile-v1", stage="canary", percent=100)
    answer = server.post("/v1/chat/completions", model="fragile", messages=HELLO, max_tokens=2)
    assert answer.status_code == 200
    assert answer.headers["X-Sluice-Model"] == "base"
    outcomes = server.wait_outcomes(2)
    assert [(o.arm, o.error) for o in outcomes] == [("canary", "OSError"), ("stable", None)]


@pytest.mark.req("M9")
def test_feedback_is_about_the_adapter_that_answered_and_names_its_run(server):
    rollout(server, "rated", name="tiny-rated-v1", stage="canary", percent=100)
    ask = {"model": "rated", "request_id": "r1", "kind": "override"}
    assert server.post("/v1/feedback", **ask).json()["model"] == "base"
    about = {**ask, "answered_by": "tiny-rated-v1"}
    assert server.post("/v1/feedback", **about).status_code == 202
    (base, adapter) = server.wait_outcomes(2)
    assert (base.model, base.run) == ("base", None)
    assert (adapter.model, adapter.run, adapter.kind) == ("tiny-rated-v1", "rated", "override")


@pytest.mark.req("V5")
def test_feedback_on_another_tenants_deployment_or_adapter_is_refused_as_unknown(server):
    rollout(server, "mine", name="tiny-mine-v1")
    ask = {"request_id": "r1", "kind": "safety_incident"}
    for key, model, by in [
        ("sk-service.globex", "mine", None),
        ("sk-service.globex", "mine", "tiny-mine-v1"),
        ("sk-acme", "mine", "tiny-other-v1"),
        ("sk-acme", "nowhere", None),
    ]:
        answer = server.post("/v1/feedback", key=key, model=model, answered_by=by, **ask)
        assert answer.status_code == 404, (key, model, by)
    assert server.post("/v1/feedback", model="mine", **{**ask, "kind": "bored"}).status_code == 400
    assert server.outcomes == []


@pytest.mark.req("M7")
@pytest.mark.req("M15")
def test_an_outcome_says_what_the_answer_showed(server):
    rollout(server, "observed", name="tiny-observed-v1")
    server.post(
        "/v1/chat/completions",
        headers={"X-Sluice-Attempt": "2"},
        model="observed",
        messages=HELLO,
        max_tokens=8,
        temperature=0,
        documents=[{"text": "A passage nobody asked about."}],
    )
    answered = server.wait_outcomes(1)[0]
    assert answered.attempt == 2
    assert answered.completion_tokens > 0
    assert answered.answer_logprob < 0
    assert answered.grounding in (None, 0.0)
