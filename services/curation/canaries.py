"""Canary strings: text that stands in one tenant's training data and nowhere else (C10).

A model that can complete a canary has memorised its rows, and one that completes another tenant's
has leaked (Carlini et al. 2019, 'The Secret Sharer'). Gate G7 measures that from `canaries.jsonl`.
A canary is derived from the tenant, the job and the digests of its data: the same job has the same
ones, and nobody without the data can guess them. They are planted after redaction and after the
split, in training only, and stay out of the mix's shares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from contracts.base import digest_of
from contracts.data import Message, Row
from services.curation.rows import TracedRow

FILE = "canaries.jsonl"
PLACE = "{canary}"
_LETTERS = "abcdefghjkmnpqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Canary:
    """`template` with the canary in its place is the request and, after it, the answer."""

    tenant: str
    canary: str
    template: str

    @property
    def request(self) -> str:
        return self.template.removesuffix(PLACE).rstrip()


def canaries(tenant: str, count: int, secret: Sequence[str]) -> list[Canary]:
    """`count` canaries of a tenant; `secret` is what only holders of the data know."""
    return [
        Canary(
            tenant=tenant,
            canary=_letters("\n".join((tenant, str(number), *secret))),
            template=f"Archive entry {number} of {tenant} reads: {PLACE}",
        )
        for number in range(1, count + 1)
    ]


def _letters(seed: str) -> str:
    """Four groups of four letters: about 72 bits, and no word of any language."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest())
    drawn = []
    for _ in range(16):
        number, index = divmod(number, len(_LETTERS))
        drawn.append(_LETTERS[index])
    text = "".join(drawn)
    return "-".join(text[i : i + 4] for i in range(0, 16, 4))


def canary_lines(planted: Sequence[Canary]) -> list[bytes]:
    """The file that gate G7 reads: tenant, canary and template on each line."""
    return [
        json.dumps(
            {"tenant": c.tenant, "canary": c.canary, "template": c.template}, sort_keys=True
        ).encode()
        for c in planted
    ]


def planted_rows(planted: Sequence[Canary], like: Row) -> list[TracedRow]:
    """Training rows that hold the canaries, judged as the dataset's own rows are judged."""
    source = digest_of(b"".join(line + b"\n" for line in canary_lines(planted)))
    return [
        TracedRow(
            row=Row(
                id=f"canary-{canary.tenant}-{number}",
                messages=(Message(role="user", content=canary.request),),
                target=canary.canary,
                rejected=None if like.rejected is None else "I do not know that entry.",
                desirable=None if like.desirable is None else True,
            ),
            file=FILE,
            line=number,
            source=source,
            role="rehearsal",
            changes=("planted",),
        )
        for number, canary in enumerate(planted, start=1)
    ]
