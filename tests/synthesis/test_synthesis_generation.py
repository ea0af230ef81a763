import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from contracts.data import Row
from contracts.governance import Teacher
from services.synthesis.adapters.journal import Journal
from services.synthesis.adapters.openai_teacher import OpenAITeacher
from services.synthesis.generation import Plan, generate
from services.synthesis.teachers import Seat
from shared.errors import Misconfigured, PeerUnavailable

NAMES = ("Oslo", "Lima", "Rome", "Cairo", "Quito", "Delhi", "Turin", "Perth")
SEEDS = tuple(
    Row(
        id=f"s{i}",
        messages=({"role": "user", "content": f"Show the weather in {name} for {i + 2} days."},),
        target=json.dumps({"name": "weather", "arguments": {"city": name, "days": i + 2}}),
    )
    for i, name in enumerate(NAMES)
)
OPENINGS = ("I would like", "Can I get", "Give me")


class Endpoint:
    """An OpenAI-compatible teacher on a real socket that counts what it is paid for."""

    def __init__(self) -> None:
        self.paid: list[dict[str, Any]] = []
        self.fails_after: int | None = None
        self.status = 503
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                limit = endpoint.fails_after
                if limit is not None and len(endpoint.paid) >= limit:
                    self._send(endpoint.status, {"error": {"message": "no"}})
                    return
                endpoint.paid.append(body)
                self._send(200, endpoint.answer(body))

            def _send(self, status: int, body: dict[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = body["messages"][-1]["content"].split(": ", 1)[1]
        rest = asked.removeprefix("Show ").removesuffix(".")
        text = f"Sure! {OPENINGS[body['seed'] % 3]} {rest}, {body['model']}."
        if "Quito" in asked:
            text = "As an AI language model, I cannot."
        message = {"role": "assistant", "content": text}
        return {
            "id": "c", "object": "chat.completion", "created": 0, "model": body["model"],
            "system_fingerprint": f"fp-{body['model']}",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }  # fmt: skip

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.close()


async def run(endpoint, path, plan, models=("ana", "ben")):
    ports = [OpenAITeacher(m, base_url=endpoint.url, retries=0) for m in models]
    seats = [
        Seat(Teacher(model=m, temperature=1.1), port) for m, port in zip(models, ports, strict=True)
    ]
    journal = Journal(path)
    try:
        return await generate(SEEDS, seats, journal, plan)
    finally:
        journal.close()
        await asyncio.gather(*(port.aclose() for port in ports))


@pytest.mark.req("S1")
@pytest.mark.req("S7")
async def test_rows_are_tagged_and_the_seeds_target_stays(endpoint, tmp_path):
    done = await run(endpoint, tmp_path / "j.jsonl", Plan(rows=6))
    assert len(done.rows) == 6
    seeds = {s.id: s for s in SEEDS}
    for row in done.rows:
        seed = seeds[row.origin.seed_row]
        assert row.target == seed.target
        assert row.group == seed.cluster
        assert row.messages != seed.messages
        assert not row.messages[0].content.startswith("Sure")
        assert row.origin.api_version == f"fp-{row.origin.model}"
        assert (row.origin.temperature, row.origin.top_p) == (1.1, 0.95)
        assert row.origin.prompt_template == "paraphrase/v1"
    assert {r.origin.model for r in done.rows} == {"ana", "ben"}
    assert done.rejected == {"teacher_refusal": 1}
    assert all(b["temperature"] == 1.1 and b["top_p"] == 0.95 for b in endpoint.paid)


@pytest.mark.req("S8")
async def test_an_interrupted_run_resumes_and_pays_for_no_answer_twice(endpoint, tmp_path):
    plan = Plan(rows=12, concurrency=3)
    endpoint.fails_after = 5
    with pytest.raises(PeerUnavailable):
        await run(endpoint, tmp_path / "j.jsonl", plan)
    assert len(endpoint.paid) == 5
    endpoint.fails_after = None
    resumed = await run(endpoint, tmp_path / "j.jsonl", plan)
    paid = len(endpoint.paid)
    assert paid == resumed.asked
    assert len({(b["model"], b["seed"]) for b in endpoint.paid}) == paid
    again = await run(endpoint, tmp_path / "j.jsonl", plan)
    assert len(endpoint.paid) == paid
    whole = await run(endpoint, tmp_path / "other.jsonl", plan)
    assert resumed == again == whole


@pytest.mark.req("S8")
async def test_a_torn_journal_line_costs_one_call_and_no_more(endpoint, tmp_path):
    path = tmp_path / "j.jsonl"
    plan = Plan(rows=5)
    whole = await run(endpoint, path, plan)
    path.write_bytes(path.read_bytes()[:-9])
    before = len(endpoint.paid)
    assert await run(endpoint, path, plan) == whole
    assert len(endpoint.paid) == before + 1
    assert all(json.loads(line) for line in path.read_text().splitlines())


async def test_attempts_are_bounded_and_fewer_rows_are_an_honest_outcome(endpoint, tmp_path):
    done = await run(endpoint, tmp_path / "j.jsonl", Plan(rows=500, attempts_per_seed=2))
    assert done.asked == 2 * len(SEEDS) == len(endpoint.paid)
    assert len(done.rows) + sum(done.rejected.values()) == done.asked
    assert done.rejected["teacher_refusal"] == 2


async def test_a_request_the_teacher_will_never_answer_is_counted_and_not_repeated(
    endpoint, tmp_path
):
    endpoint.fails_after, endpoint.status = 0, 400
    done = await run(endpoint, tmp_path / "j.jsonl", Plan(rows=3, attempts_per_seed=1))
    assert done.rows == ()
    assert done.rejected == {"teacher_error": len(SEEDS)}
    endpoint.fails_after = None
    assert await run(endpoint, tmp_path / "j.jsonl", Plan(rows=3, attempts_per_seed=1)) == done
    assert endpoint.paid == []


async def test_a_wrong_key_stops_the_loop_with_a_mend(endpoint, tmp_path):
    endpoint.fails_after, endpoint.status = 0, 401
    with pytest.raises(Misconfigured) as caught:
        await run(endpoint, tmp_path / "j.jsonl", Plan(rows=3))
    assert "key" in caught.value.mend
