"""The labelling page of a running console, used by two raters and an expert over HTTP."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.console.settings import ConsoleSettings
from shared.errors import Misconfigured
from shared.labelling import ENOUGH, Round, read_rows
from shared.messaging.embedded import free_port
from tests.curation.samples import jsonl, row

ROWS = 24


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    rows = [row(f"secret-id-{n}", f"Request {n} <b>&", f"Answer {n}", meta={"source": "crm"})
            for n in range(ROWS)]  # fmt: skip
    (tmp_path / "rows.jsonl").write_bytes(jsonl(rows))
    return tmp_path / "rows.jsonl"


@pytest.fixture
def console_settings(rows_file: Path) -> ConsoleSettings:
    return ConsoleSettings(port=free_port(), label_rows=rows_file)


async def shown(browser: httpx.AsyncClient, **seat: str) -> tuple[str, dict[str, str]]:
    """The page as text, and the hidden fields of its form."""
    page = await browser.get("/label", params=seat)
    assert page.status_code == 200
    fields = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text)
    return html.unescape(page.text), dict(fields)


async def answer(browser: httpx.AsyncClient, fields: dict[str, str], label: str) -> httpx.Response:
    return await browser.post("/label", data={**fields, "label": label})


async def label_all(browser: httpx.AsyncClient, rater: str, choose: Any) -> list[int]:
    """Label until nothing is left; the rows in the order they were shown."""
    order = []
    while True:
        text, fields = await shown(browser, rater=rater)
        found = re.search(r"Request (\d+)", text)
        if found is None:
            return order
        order.append(int(found[1]))
        assert (await answer(browser, fields, choose(order[-1]))).status_code == 303


@pytest.mark.req("C2")
async def test_raters_label_blind_and_an_expert_decides_what_they_dispute(
    browser: httpx.AsyncClient, rows_file: Path
) -> None:
    text, fields = await shown(browser, rater="ana")
    assert "<b>&" in text
    assert "<b>" not in (await browser.get("/label", params={"rater": "ana"})).text
    for hidden in ("secret-id", "crm", "ana said", "Raters said"):
        assert hidden not in text
    assert (await answer(browser, fields, "maybe")).status_code == 422
    ana = await label_all(browser, "ana", lambda n: "reject" if n % 3 == 0 else "keep")
    ben = await label_all(browser, "ben", lambda n: "reject" if n % 3 == 0 and n else "keep")
    assert sorted(ana) == sorted(ben) == list(range(ROWS))
    assert ana != ben
    await answer(browser, fields, "keep")  # a second click on what was answered
    here = Round.of(rows_file, read_rows(rows_file), ["label"], 1)
    assert len(here.annotations()) == 2 * ROWS
    refused = await browser.get("/label", params={"rater": "ana", "role": "adjudicator"})
    assert refused.status_code == 409
    text, fields = await shown(browser, rater="eve", role="adjudicator")
    assert "Request 0 " in text
    assert "Raters said: keep, reject" in text
    assert "ben" not in text
    await answer(browser, fields, "reject")
    text, _ = await shown(browser, rater="eve", role="adjudicator")
    assert "Nothing is left to decide" in text
    voting = await browser.get("/label", params={"rater": "eve"})
    assert voting.status_code == 409
    assert "has seen, as an adjudicator, what others said of 1 of these rows" in voting.text
    _, labels = here.agreement()
    assert labels["label"].undecided() == []
    assert sum(a.adjudication for a in here.annotations()) == 1


@pytest.mark.req("C2")
async def test_labelling_stops_where_raters_agree_too_little(
    browser: httpx.AsyncClient, rows_file: Path
) -> None:
    await label_all(browser, "ana", lambda n: "reject" if n % 2 else "keep")
    seen = await label_all(browser, "ben", lambda n: "reject" if n % 3 else "keep")
    assert len(seen) == ENOUGH
    text, fields = await shown(browser, rater="ben")
    assert "kappa is" in text
    assert fields == {}
    here = Round.of(rows_file, read_rows(rows_file), ["label"], 1)
    ticket = {"rater": "ben", "ticket": "0" * 32, "label": "keep"}
    assert (await browser.post("/label", data=ticket)).status_code == 303
    assert len(here.annotations()) == ROWS + ENOUGH


async def test_only_the_consoles_own_pages_may_label_and_names_are_plain(
    browser: httpx.AsyncClient,
) -> None:
    other = {"origin": "https://elsewhere.example"}
    assert (await browser.post("/label", data={"rater": "ana"}, headers=other)).status_code == 403
    for name in ("../ana", "Ana", "a b"):
        assert (await browser.get("/label", params={"rater": name})).status_code == 422
    assert "Who labels?" in (await browser.get("/label")).text
    for page in ("/", "/alerts"):
        assert '<a href="/label">Label</a>' in (await browser.get(page)).text


class TestRatersWithTokens:
    @pytest.fixture
    def console_settings(self, rows_file: Path) -> ConsoleSettings:
        return ConsoleSettings(
            port=free_port(), token="operator", label_rows=rows_file,
            label_raters={"ana": "token of ana", "ben": "token of ben"},
        )  # fmt: skip

    @pytest.mark.req("C2")
    async def test_a_label_is_of_the_rater_who_signed_in(
        self, browser: httpx.AsyncClient, rows_file: Path
    ) -> None:
        assert (await browser.get("/label")).headers["location"] == "/login"
        signed = await browser.post("/login", data={"token": "token of ana"})
        assert signed.headers["location"] == "/label"
        assert "You are signed in as ana" in (await browser.get("/label")).text
        _, fields = await shown(browser, rater="ana")
        assert (await answer(browser, fields, "keep")).status_code == 303
        for forged in ({"rater": "ben"}, {"rater": "ben", "role": "adjudicator"}):
            refused = await browser.get("/label", params=forged)
            assert refused.status_code == 403
            assert "signed in as ana, not as ben" in refused.text
        assert (await answer(browser, {**fields, "rater": "ben"}, "keep")).status_code == 403
        assert (await answer(browser, {"ticket": fields["ticket"]}, "keep")).status_code == 422
        here = Round.of(rows_file, read_rows(rows_file), ["label"], 1)
        assert {a.rater for a in here.annotations()} == {"ana"}

    async def test_a_raters_token_opens_the_labelling_page_alone(
        self, browser: httpx.AsyncClient
    ) -> None:
        rater = {"authorization": "Bearer token of ben"}
        assert (await browser.get("/label", headers=rater)).status_code == 200
        assert (await browser.get("/api/runs", headers=rater)).status_code == 401
        assert (await browser.get("/", headers=rater)).headers["location"] == "/login"
        operator = {"authorization": "Bearer operator"}
        assert (await browser.get("/api/runs", headers=operator)).status_code == 200
        refused = await browser.get("/label", params={"rater": "ana"}, headers=operator)
        assert refused.status_code == 403
        assert (await browser.post("/login", data={"token": "nobody's"})).status_code == 401


@pytest.mark.parametrize("tokens", [{"ana": "x", "ben": "x"}, {"ana": ""}, {"ana": "operator"}])
def test_a_token_that_does_not_tell_raters_apart_is_refused(tokens: dict[str, str]) -> None:
    with pytest.raises(Misconfigured, match="tokens are the same, or one is empty"):
        ConsoleSettings(token="operator", label_raters=tokens).require_safe()
