"""Refusals open with a few set phrases."""

from __future__ import annotations

import pytest

from shared.scoring.refusal import OPENING, refuses


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I am unable to share account details.",
        "As an AI language model, I have no access to your calendar.",
        "We cannot process this request.",
        "My apologies. That is outside of what I do.",
        "I’m not able to book flights.",
    ],
)
def test_a_refusal_is_recognized(answer) -> None:
    assert refuses(answer)


@pytest.mark.parametrize(
    "answer",
    [
        '{"name": "refund", "arguments": {"order": "A-17"}}',
        "Your parcel cannot be delivered on Sundays.",
        "He said he was sorry for the delay.",
        "",
        "x" * OPENING + "I'm sorry, but I can't.",
    ],
)
def test_an_answer_is_no_refusal(answer) -> None:
    assert not refuses(answer)
