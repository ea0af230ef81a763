"""Rows without a teacher; how fast and how dear asking is; a process killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from contracts.data import Row, RowTemplate
from contracts.governance import Teacher
from services.synthesis.adapters.journal import Journal
from services.synthesis.coldstart import from_simulator, from_templates
from services.synthesis.generation import Plan, generate
from services.synthesis.pace import Pace, Spending
from services.synthesis.teachers import Completion, Seat
from shared.errors import InvalidInput
from tests.synthesis.test_synthesis_generation import Endpoint

TEMPLATE = RowTemplate(
    id="weather",
    request="Show the weather in {city} for {days} days",
    target='{"name": "weather", "arguments": {"city": "{city}", "days": {days}}}',
    expected='{"weather": {"city": ["{city}"], "days": [{days}]}}',
    slots={"city": ("Oslo", "Lima", "Rome"), "days": ("1", "2", "3", "4")},
)


@pytest.mark.req("S1", "S7")
def test_templates_give_each_way_to_fill_them_once_and_say_so():
    rows = from_templates([TEMPLATE, TEMPLATE.model_copy(update={"id": "other"})], 500)
    assert len({r.id for r in rows}) == len(rows) == 24
    own = [r for r in rows if r.id.startswith("tpl-weather-")]
    assert len({r.messages[0].content for r in own}) == 12
    for made in own:
        arguments = json.loads(made.target)["arguments"]
        assert arguments["city"] in made.messages[0].content
        assert made.expected == {"weather": {k: [v] for k, v in arguments.items()}}
        assert made.origin.model == "template:weather"
        assert made.origin.api_version.startswith("sha256:")
    few = from_templates([TEMPLATE], 6)
    assert {json.loads(r.target)["arguments"]["city"] for r in few} == {"Oslo", "Lima", "Rome"}


SIMULATOR = b"""
import json, random, sys
count, seed = map(int, sys.argv[1:])
draw = random.Random(seed)
for i in range(count):
    a, b = draw.randint(1, 99), draw.randint(1, 99)
    print(json.dumps({"id": f"sim{i}", "messages": [{"role": "user", "content": f"{a}+{b}?"}],
                      "target": str(a + b)}))
"""


@pytest.mark.req("S4", "S7")
def test_a_simulator_plays_in_the_sandbox_and_is_the_same_twice():
    rows = from_simulator(SIMULATOR, 5)
    assert rows == from_simulator(SIMULATOR, 5)
    assert len(rows) == 5
    for made in rows:
        a, b = made.messages[0].content.rstrip("?").split("+")
        assert int(made.target) == int(a) + int(b)
        assert made.origin.model == "simulator"
    with pytest.raises(InvalidInput, match="ended without its rows"):
        from_simulator(b"open('/etc/shadow').read()", 1)
    with pytest.raises(InvalidInput, match="line 1"):
        from_simulator(b"print('no row')", 1)


async def test_requests_go_at_the_pace_an_endpoint_allows():
    now, slept = [0.0], []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(120, clock=lambda: now[0], sleep=sleep)
    for _ in range(4):
        await pace.turn()
    assert now[0] == pytest.approx(1.5)
    assert slept == pytest.approx([0.5, 0.5, 0.5])
    await Pace(None, sleep=sleep).turn()
    assert len(slept) == 3


@pytest.mark.req("S8")
async def test_asking_stops_when_the_money_is_spent_and_a_restart_counts_it_again(tmp_path):
    class Dear:
        asked = 0

        async def complete(self, messages, **_):
            Dear.asked += 1
            return Completion(f"Can you tell me about number {Dear.asked} please", "v", 1_000_000)

    seeds = [Row(id=f"s{i}", messages=({"role": "user", "content": f"Tell me about number {i}"},),
                 target="x") for i in range(20)]  # fmt: skip
    seat = Seat(Teacher(model="t", price_per_mtok=1.0), Dear())
    plan = Plan(rows=20, concurrency=1, produces="answers")
    for spending in (Spending(maximum=3.0), Spending(maximum=3.0)):
        journal = Journal(tmp_path / "j.jsonl")
        await generate(seeds, [seat], journal, plan, spending=spending)
        journal.close()
        assert spending.cost == pytest.approx(3.0)
    assert Dear.asked == 3
    assert spending.calls == 0


PROCESS = """
import asyncio, sys
from pathlib import Path
from contracts.governance import Teacher
from services.synthesis.adapters.journal import Journal
from services.synthesis.adapters.openai_teacher import OpenAITeacher
from services.synthesis.generation import Plan, generate
from services.synthesis.teachers import Seat
from tests.synthesis.test_synthesis_generation import SEEDS

async def main() -> None:
    port = OpenAITeacher("ana", base_url=sys.argv[1], retries=0)
    seat = Seat(Teacher(model="ana", temperature=1.1), port)
    done = await generate(SEEDS, [seat], Journal(Path(sys.argv[2])), Plan(rows=16, concurrency=1))
    await port.aclose()
    print(len(done.rows), done.asked)

asyncio.run(main())
"""


@pytest.mark.req("S8")
def test_a_generation_killed_with_9_repeats_no_paid_call(tmp_path):
    endpoint = Endpoint()
    answer = endpoint.answer
    endpoint.answer = lambda body: (time.sleep(0.05), answer(body))[1]
    journal = tmp_path / "j.jsonl"
    command = [sys.executable, "-c", PROCESS, endpoint.url, str(journal)]
    try:
        first = subprocess.Popen(command, stdout=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= 5):
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
        kept = journal.read_bytes().count(b"\n")
        paid = len(endpoint.paid)
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    finally:
        endpoint.close()
    rows, asked = map(int, done.stdout.split())
    assert 5 <= kept < asked
    # Only a call that was in flight when the process died can be asked for again.
    assert paid - kept <= 1
    assert len(endpoint.paid) == asked + (paid - kept)
    seeds = [body["seed"] for body in endpoint.paid]
    assert len(seeds) - len(set(seeds)) == paid - kept
    assert rows > 0
