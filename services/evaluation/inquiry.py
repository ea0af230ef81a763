"""What G6, G7 and G12 ask of the two models, whoever carries the questions.

The gates of a run and `sluice gate` ask the same: each passes an `Ask`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from contracts.data import Canary, Row
from contracts.job import Behaviour
from services.evaluation.gates import g4, g6, g7, g12, spans
from services.evaluation.gates.judgement import Judgement
from services.evaluation.suites import elsewhere, malformed, safety
from shared.asking import Answer, AskOptions, Scored, scored_answers
from shared.scoring import Scorer

Who = Literal["base", "candidate"]
Ask = Callable[[Who, Sequence[Row], int], Awaitable[Sequence[Answer]]]
"""Greedy answers of one model to rows, each of at most so many tokens."""
Likelihoods = Callable[[Who, str, Sequence[str]], Awaitable[Sequence[float]]]
"""Of each text after one request: the model's summed log-probability in nats."""

SAFETY_TOKENS = 24
MOST_PROBES = 40
MOST_CONTROLS = 20
MOST_CANARIES = 6


def asked_as(behaviour: Behaviour) -> AskOptions:
    """How the target behaviour is asked for: as it will be served."""
    schema = behaviour.output_schema if behaviour.constrained else None
    return AskOptions(
        system_prompt=behaviour.system_prompt,
        max_tokens=behaviour.max_tokens,
        response_schema=schema,
        constrain_calls=behaviour.constrained and schema is None,
    )


async def broken_requests_of(
    ask: Ask, rows: Sequence[Row], scorer: Scorer, *, max_tokens: int
) -> list[g4.Handled]:
    """What the candidate makes of the held-out requests when they arrive broken (G4)."""
    items = malformed.malformed(rows)
    asked = [item.row for item in items]
    answers = await ask("candidate", asked, max_tokens) if asked else ()
    scored = await scored_answers(asked, answers, scorer)
    return [
        g4.Handled(
            item=item.row.id,
            lossy=bool(item.lost),
            invented=malformed.invents(item, found.answer.text),
            right=not item.lost and found.value == 1.0,
            output=found.answer.text,
        )
        for item, found in zip(items, scored, strict=True)
    ]


async def safety_of(
    ask: Ask,
    *,
    maximum_loss: float,
    level: float,
    items: Sequence[safety.SafetyItem] | None = None,
) -> Judgement:
    """G6 by our suite, or by `items`."""
    items = safety.items() if items is None else items
    rows = [item.row for item in items]
    base = [answer.text for answer in await ask("base", rows, SAFETY_TOKENS)]
    candidate = [answer.text for answer in await ask("candidate", rows, SAFETY_TOKENS)]
    return g6.judge(items, base, candidate, maximum_loss=maximum_loss, level=level)


async def privacy_of(
    ask: Ask,
    likelihoods: Likelihoods,
    train: Sequence[Row],
    validation: Sequence[Row],
    canaries: Sequence[Canary],
    *,
    max_tokens: int,
    maximum_memorized: float,
    level: float,
) -> Judgement:
    """G7 by the candidate's own training rows."""
    planted = {canary.canary for canary in canaries}
    own = [row for row in train if row.target and row.target not in planted]
    eligible = [row for row in own if _tells(row)]
    probes = await _probe(ask, _drawn(eligible, MOST_PROBES), max_tokens)
    controls = [row for row in validation if row.target and _tells(row)]
    held = await _probe(ask, _drawn(controls, MOST_CONTROLS), max_tokens) if probes else []
    seen = g7.Evidence(
        probes=probes,
        eligible=len(eligible),
        controls=held,
        ranks=await _ranks(likelihoods, canaries),
    )
    return g7.judge(seen, maximum_memorized=maximum_memorized, level=level)


async def other_words_of(
    ask: Ask,
    rows: Sequence[Row],
    plain: Sequence[Scored],
    scorer: Scorer,
    *,
    max_tokens: int,
    minimum_retained: float,
    maximum_loss: float,
    level: float,
) -> Judgement:
    """G12 by the held-out rows in other dress and two suites from elsewhere."""
    dressed = g12.dressed(rows)
    perturbed = await scored_answers(dressed, await ask("candidate", dressed, max_tokens), scorer)
    unseen, premises = elsewhere.unseen_domains(), elsewhere.false_premises()
    values: dict[Who, tuple[list[float], list[float]]] = {}
    for who in ("base", "candidate"):
        said = [a.text for a in await ask(who, [*unseen, *premises], SAFETY_TOKENS)]
        right = zip(unseen, said[: len(unseen)], strict=True)
        values[who] = (
            [float(elsewhere.answers_right(row, text)) for row, text in right],
            [float(elsewhere.objects(text)) for text in said[len(unseen) :]],
        )
    return g12.judge(
        plain,
        perturbed,
        minimum_retained=minimum_retained,
        maximum_loss=maximum_loss,
        level=level,
        unseen=(values["base"][0], values["candidate"][0]),
        premises=(values["base"][1], values["candidate"][1]),
    )


def _request(row: Row) -> str:
    return "\n".join([*(m.content for m in row.messages), *map(str, row.tools)])


def _tells(row: Row) -> bool:
    """Whether the target holds enough beyond its request to be told from right answering."""
    target, request = row.target or "", _request(row)
    values = spans.sensitive(target)
    return spans.unprompted(target, request) >= g7.SPAN or any(v not in request for v in values)


def _drawn(rows: Sequence[Row], most: int) -> list[Row]:
    """At most so many rows: those with sensitive values first, then as their ids' hashes fall."""

    def order(row: Row) -> tuple[bool, str]:
        return not spans.sensitive(row.target or ""), hashlib.sha256(row.id.encode()).hexdigest()

    return sorted(rows, key=order)[:most]


async def _probe(ask: Ask, rows: Sequence[Row], max_tokens: int) -> list[g7.Probe]:
    said = [a.text for a in await ask("candidate", rows, max_tokens)] if rows else []
    found = [_seen(row, text) for row, text in zip(rows, said, strict=True)]
    telling = [row for row, (span, leaked) in zip(rows, found, strict=True) if span or leaked]
    answers = await ask("base", telling, max_tokens) if telling else ()
    base = {row.id: _seen(row, a.text) for row, a in zip(telling, answers, strict=True)}
    return [
        g7.Probe(
            row=row.id,
            candidate_span=span,
            base_span=base.get(row.id, (0, {}))[0],
            leaked=tuple(
                sorted({k for v, k in leaked.items() if v not in base.get(row.id, (0, {}))[1]})
            ),
            output=text,
        )
        for row, text, (span, leaked) in zip(rows, said, found, strict=True)
    ]


def _seen(row: Row, answer: str) -> tuple[int, dict[str, str]]:
    """The longest reproduced run, and sensitive values of the row alone that the answer holds."""
    target, request = row.target or "", _request(row)
    own = spans.sensitive(target)
    leaked = {v: kind for v, kind in own.items() if v in answer and v not in request}
    return spans.longest_unprompted_run(target, answer, request), leaked


async def _ranks(likelihoods: Likelihoods, canaries: Sequence[Canary]) -> list[g7.Rank]:
    chosen = canaries[:MOST_CANARIES]
    ranks = []
    for number, canary in enumerate(chosen):
        count = max(31, 128 // len(chosen))
        others = _strings_like(canary.canary, [c.canary for c in canaries], count)
        request = canary.template.partition("{canary}")[0].rstrip()
        texts = [canary.canary, *others]
        base = await likelihoods("base", request, texts)
        candidate = await likelihoods("candidate", request, texts)
        # What training added: some strings are likely to begin with.
        own, *rest = (c - b for b, c in zip(base, candidate, strict=True))
        rank = 1 + sum(value >= own for value in rest)
        ranks.append(g7.Rank(canary=number, rank=rank, references=count))
    return ranks


def _strings_like(canary: str, all_canaries: Sequence[str], count: int) -> list[str]:
    """Strings of the canary's form: its letters and digits drawn from those all canaries use."""
    used = sorted(set("".join(all_canaries)))
    pools = {kind: [c for c in used if _kind(c) == kind] for kind in ("lower", "upper", "digit")}
    made = []
    for number in range(count):
        bits = int.from_bytes(hashlib.shake_256(f"{number}:{canary}".encode()).digest(64))
        text = ""
        for letter in canary:
            pool = pools.get(_kind(letter), [letter])
            bits, index = divmod(bits, len(pool))
            text += pool[index]
        made.append(text)
    return made


def _kind(letter: str) -> str:
    if letter.isdigit():
        return "digit"
    return "lower" if letter.islower() else "upper" if letter.isupper() else "other"
