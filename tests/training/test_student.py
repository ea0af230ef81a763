"""Students by depth pruning: which blocks stay, and a checkpoint that loads and generates."""

from __future__ import annotations

import pytest

from services.training.pruning import kept_layers
from shared.testing.tiny_model import build_tiny_llama


@pytest.mark.parametrize(
    ("layers", "keep", "kept"),
    [(30, 4, (0, 10, 19, 29)), (3, 2, (0, 2)), (4, 4, (0, 1, 2, 3))],
)
def test_the_ends_stay_and_the_rest_lies_evenly(layers, keep, kept):
    assert kept_layers(layers, keep) == kept


@pytest.mark.parametrize("keep", [1, 5])
def test_a_count_the_base_cannot_give_is_refused(keep):
    with pytest.raises(ValueError, match="between 2 and 4"):
        kept_layers(4, keep)


@pytest.mark.slow
def test_the_student_computes_the_kept_blocks_with_the_bases_tokenizer(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    from services.training.adapters.student import prune_depth
    from shared.models import tokenizer_digest

    base, out = build_tiny_llama(tmp_path / "base"), tmp_path / "student"
    assert prune_depth(base, out, keep=2) == (0, 2)
    student = AutoModelForCausalLM.from_pretrained(out)
    whole = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.tensor([[1, 7, 30, 44]])
    whole.model.layers[1].forward = lambda hidden, *args, **kwargs: hidden
    with torch.no_grad():
        assert torch.allclose(student(ids).logits, whole(ids).logits, atol=1e-5)
    assert tokenizer_digest(out) == tokenizer_digest(base)
    answer = student.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4)
    assert answer.shape[1] > ids.shape[1]
    with pytest.raises(ValueError, match="exists"):
        prune_depth(base, out, keep=2)
