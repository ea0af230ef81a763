"""The studio end to end: cold rows first, then verified answers, with the evidence put away."""

import json
from types import SimpleNamespace

import pytest

from contracts.curation import SynthesisRequested
from contracts.data import parse_row
from contracts.governance import Synthesis
from services.synthesis.adapters.openai_teacher import OpenAITeacher
from services.synthesis.diversity import program_alarms
from services.synthesis.studio import Studio
from services.synthesis.teachers import Completion
from shared.artifacts import ArtifactStore, Pinned
from shared.errors import Misconfigured
from shared.settings import Settings
from tests.synthesis.test_coldstart_and_pace import SIMULATOR, TEMPLATE

PROGRAMS = (
    "def f(x):\n    return x + {i} if x > 0 else {i}",
    "def f(x):\n    total = {i}\n    for _ in range(x):\n        total += 1\n    return total",
)  # fmt: skip


@pytest.fixture
def studio(tmp_path) -> tuple[Studio, ArtifactStore]:
    settings = Settings(home=tmp_path)
    store = ArtifactStore(settings.artifacts_url)
    return Studio(settings, store), store


def a_run(synthesis: Synthesis, seeds: str, rows: int) -> SimpleNamespace:
    job = SimpleNamespace(synthesis=synthesis, tenant="acme")
    asked = SynthesisRequested(seeds=seeds, rows=rows)
    return SimpleNamespace(job=job, synthesis_requested=asked, asked_teacher=None, ref="acme/r")


def lines(store: ArtifactStore, digest: str) -> list[dict]:
    return [json.loads(line) for line in store.get(digest).splitlines()]


@pytest.mark.req("S4", "S5", "S7")
async def test_cold_rows_come_first_and_answers_are_verified(studio, monkeypatch):
    made, store = studio

    async def complete(self, messages, **asked):
        number = messages[-1].content.split()[-1]
        turn = asked["seed"] % 2
        return Completion(PROGRAMS[turn].replace("{i}", number), "v7", tokens=100)

    monkeypatch.setattr(OpenAITeacher, "complete", complete)
    seeds = [
        {"id": f"s{i}", "messages": [{"role": "user", "content": f"Write f that adds {i}"}],
         "target": "def f(x): ...", "expected": {"tests": f"assert f(2) == {i + 2}"}}
        for i in range(6)
    ]  # fmt: skip
    templates = store.put(TEMPLATE.model_dump_json().encode() + b"\n")
    wish = Synthesis(
        rows=20, produces="answers", verify="python",
        templates=str(Pinned(templates, "templates.jsonl")),
        teachers=[{"model": "t", "price_per_mtok": 5.0}],
    )  # fmt: skip
    put = store.put(b"".join(json.dumps(s).encode() + b"\n" for s in seeds))
    done = await made.synthesize(a_run(wish, put, 20), lambda _: None)
    rows = [parse_row(line) for line in store.get(done.rows).splitlines()]
    assert done.accepted == len(rows)
    assert [r.id.startswith("tpl-") for r in rows[:13]] == [True] * 12 + [False]
    runs = {r["run"]: r for r in lines(store, done.records) if r["kind"] == "sandbox_run"}
    for row in rows[12:]:
        record = runs[row.origin.sandbox_run]
        assert record["row"] == row.id
        assert record["harness"] == "python/v1"
        assert row.origin.api_version == "v7"
    assert done.cost > 0
    assert done.tokens % 100 == 0
    again = await made.synthesize(a_run(wish, put, 20), lambda _: None)
    assert again == done


async def test_a_simulator_alone_asks_no_teacher(studio):
    made, store = studio
    wish = Synthesis(rows=4, simulator=str(Pinned(store.put(SIMULATOR), "sim.py")))
    done = await made.synthesize(a_run(wish, store.put(b""), 4), lambda _: None)
    assert (done.accepted, done.cost, done.rejected) == (4, 0.0, {})


@pytest.mark.req("S6")
async def test_nothing_is_generated_where_a_judge_disagrees_with_people(studio, monkeypatch):
    made, store = studio

    async def complete(self, messages, **_):
        return Completion("no scores", "v", tokens=1)

    monkeypatch.setattr(OpenAITeacher, "complete", complete)
    gold = store.put(
        b"".join(
            json.dumps({"id": f"g{i}", "messages": [{"role": "user", "content": f"q{i}"}],
                        "target": "a", "expected": {"accept": bool(i % 2)}}).encode() + b"\n"
            for i in range(10)
        )
    )  # fmt: skip
    panel = {"judges": [{"model": "a"}, {"model": "b"}], "gold": str(Pinned(gold, "gold.jsonl"))}
    wish = Synthesis(rows=4, panel=panel)
    seeds = store.put(b'{"id":"s","messages":[{"role":"user","content":"Say 5"}],"target":"x"}\n')
    done = await made.synthesize(a_run(wish, seeds, 4), lambda _: None)
    assert done.accepted == 0
    assert all("has no vote" in alarm for alarm in done.alarms)
    kinds = {(r["judge"], r["may_vote"]) for r in lines(store, done.records)}
    assert kinds == {("a", False), ("b", False)}


async def test_a_key_that_is_not_set_is_named(studio):
    made, store = studio
    wish = Synthesis(rows=1, teachers=[{"model": "t", "url": "http://x/v1",
                                        "key_variable": "SLUICE_KEY_NOT_THERE"}])  # fmt: skip
    with pytest.raises(Misconfigured, match="SLUICE_KEY_NOT_THERE"):
        await made.synthesize(a_run(wish, store.put(b""), 1), lambda _: None)
    with pytest.raises(ValueError, match="key_variable"):
        Synthesis(rows=1, teachers=[{"model": "t", "key_variable": "HOME"}])


@pytest.mark.req("S3", "F2")
def test_programs_of_one_structure_raise_the_monoculture_alarm():
    same = [{"shape": ["FunctionDef", "Return"], "coverage": 1.0}] * 9
    assert "100% of programs have the same structure" in program_alarms(same)[0]
    other = [{"shape": ["FunctionDef", "For", str(i)], "coverage": 0.5} for i in range(9)]
    [alarm] = program_alarms(other)
    assert "tests take 50% of the branches" in alarm
