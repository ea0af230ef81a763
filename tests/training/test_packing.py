"""Packing: every token is predicted once, and none is padding."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.training.packing import block_count, packed

TEXTS = st.lists(st.lists(st.integers(0, 99), max_size=9), max_size=8)


@pytest.mark.req("T1")
@given(texts=TEXTS, length=st.integers(2, 12))
def test_every_token_but_the_first_is_predicted_once_in_blocks_of_one_length(texts, length):
    tokens = [token for text in texts for token in text]
    blocks = packed(texts, length)
    assert [token for block in blocks for token in block[1:]] == tokens[1:]
    assert all(len(block) == length for block in blocks[:-1])
    assert all(2 <= len(block) <= length for block in blocks)
    assert all(a[-1] == b[0] for a, b in pairwise(blocks))
    assert block_count(len(tokens), length) == len(blocks)


def test_a_block_of_one_token_is_refused():
    with pytest.raises(ValueError, match="predicts nothing"):
        packed([[1, 2]], 1)
