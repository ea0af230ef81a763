"""One gate without a run: `python -m services.evaluation.alone`, which `sluice gate` starts.

Base and candidate are names at one OpenAI-compatible endpoint; `OPENAI_API_KEY` opens it. Exit
code: 0 passed, 3 failed, 4 inconclusive.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from contracts.data import Row, parse_row
from contracts.job import Behaviour, GatePolicy
from services.evaluation.gates import g1, g3, g4
from services.evaluation.gates.judgement import Judgement
from services.evaluation.inquiry import Ask, Who, other_words_of, privacy_of, safety_of
from services.evaluation.report import junit, markdown
from shared.asking import Answer, Asker, AskOptions, score_answers
from shared.errors import SluiceError
from shared.scoring import resolve

GATES = ("G1", "G3", "G4", "G6", "G7", "G12")
"""What needs answers alone. G2 and G5 want an engine that gives log-probabilities."""
EXIT = {"passed": 0, "failed": 3, "inconclusive": 4}


async def judge(gate: str, ask: Ask, rows: Sequence[Row], behaviour: Behaviour) -> Judgement:
    """The gate's verdict by the default policy. `rows` are held-out items; of G7, training rows."""
    policy, tokens = GatePolicy(), behaviour.max_tokens
    if gate == "G6":
        return await safety_of(ask, maximum_loss=policy.maximum_safety_loss, level=policy.level)
    if gate == "G7":
        return await privacy_of(
            ask,
            _no_likelihoods,
            rows,
            (),
            (),
            max_tokens=tokens,
            maximum_memorized=policy.maximum_memorized,
            level=policy.level,
        )
    scorer = resolve(behaviour)
    if gate == "G12":
        plain = score_answers(rows, await ask("candidate", rows, tokens), scorer)
        return await other_words_of(
            ask,
            rows,
            plain,
            scorer,
            max_tokens=tokens,
            minimum_retained=policy.minimum_retained,
            level=policy.level,
        )
    base = score_answers(rows, await ask("base", rows, tokens), scorer)
    if gate == "G1":
        return g1.judge(base, minimum_items=30, level=policy.level)
    candidate = score_answers(rows, await ask("candidate", rows, tokens), scorer)
    if gate == "G3":
        return g3.judge(base, candidate, minimum_gain=policy.minimum_gain, level=policy.level)
    return g4.judge(base, candidate, minimum_validity=policy.minimum_validity, level=policy.level)


async def _no_likelihoods(who: Who, request: str, texts: Sequence[str]) -> Sequence[float]:
    raise NotImplementedError("without canaries nothing asks for likelihoods")


async def run(options: argparse.Namespace) -> Judgement:
    """Ask the endpoint and judge."""
    lines = options.suite.read_bytes().splitlines() if options.suite else []
    rows = [parse_row(line) for line in lines if line.strip()]
    behaviour = Behaviour(
        description=f"gate {options.gate} alone",
        scorer=options.scorer,
        target=1.0,
        max_tokens=options.max_tokens,
    )
    async with Asker(options.url, os.environ.get("OPENAI_API_KEY", "unused")) as asker:

        async def ask(who: Who, asked: Sequence[Row], max_tokens: int) -> Sequence[Answer]:
            model = options.base if who == "base" else options.candidate
            return await asker.ask_all(
                asked, model=model, options=AskOptions(max_tokens=max_tokens)
            )

        return await judge(options.gate, ask, rows, behaviour)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m services.evaluation.alone")
    parser.add_argument("gate", choices=GATES)
    parser.add_argument("--candidate", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--suite", type=Path)
    parser.add_argument("--scorer", default="exact_match")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--junit", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args(arguments)
    if options.gate != "G6" and options.suite is None:
        parser.error(f"{options.gate} needs --suite")
    began = time.monotonic()
    try:
        judged = asyncio.run(run(options))
    except (SluiceError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.junit:
        options.junit.write_text(junit(judged, time.monotonic() - began), encoding="utf-8")
    text = markdown(judged)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    print(text, end="")
    return EXIT[judged.verdict]


if __name__ == "__main__":
    sys.exit(main())
