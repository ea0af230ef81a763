"""The example jobs of LoRA, DPO and KTO on the model they name, by the services' own code.

A few short rows and steps; `--long` carries out each job as it stands. Either way the adapter has
to load on the base, say there what it said at the end of its training, and do better than the base
on rows that curation held out. `make assets` fetches model and rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.preference import BETTER, FOLDER, CarriedOut, carry_out
from contracts.training import Fingerprint
from services.training.adapters.tokens import IGNORED, encode_file
from shared.settings import Settings

HOME = Settings().home
BASE = HOME / "models" / "smollm2-135m-instruct"
FILES = {"job": "train", "dpo": "pairs", "kto": "judged"}
STEPS = {"job": 32, "dpo": 12, "kto": 10}
SHORT: dict[str, Any] = {
    "shortest": 24,
    "max_steps": 2,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "precision": "float32",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("e2e"),
    pytest.mark.skipif(not (BASE / "config.json").is_file(), reason=f"no {BASE}: `make assets`"),
]


async def carried_out(name: str, folder: Path, *, long: bool) -> CarriedOut:
    if not (FOLDER / "data" / f"{FILES[name]}.jsonl").is_file():
        pytest.skip(f"no data/{FILES[name]}.jsonl beside the example: `make assets`")
    done = await carry_out(name, HOME, folder, **({} if long else SHORT))
    assert done.trained.steps == (STEPS[name] if long else SHORT["max_steps"])
    return done


def loaded(done: CarriedOut) -> tuple[Any, Any]:
    """The adapter on its base, once it says there what its fingerprints say, and the tokenizer."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = load_file(done.adapter / "adapter_model.safetensors")
    moved = [name for name, w in weights.items() if "lora_B" in name and w.abs().max() > 0]
    assert len(moved) == 30 * 7  # B of every linear layer of every block began as zero
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, done.adapter).eval()
    prints = json.loads((done.adapter / "fingerprints.json").read_text())
    taken = Fingerprint.model_validate(prints[0])
    ids = torch.tensor([taken.prompt_token_ids])
    with torch.no_grad():
        said = model(ids).logits[0, -1].log_softmax(-1)[list(taken.top_token_ids)]
    assert torch.allclose(said, torch.tensor(taken.top_logprobs), atol=1e-3)
    return model, AutoTokenizer.from_pretrained(BASE)


@torch.no_grad()
def mean_loss(model: Any, tokenizer: Any, rows: Path) -> float:
    """Negative log-likelihood per token of the answers of `rows`."""
    total, tokens = 0.0, 0
    for row in encode_file(tokenizer, rows, max_length=768).examples:
        labels = torch.tensor([row.labels])
        count = int((labels != IGNORED).sum())
        total += float(model(torch.tensor([row.input_ids]), labels=labels).loss) * count
        tokens += count
    return total / tokens


@pytest.mark.req("T1", "T2")
async def test_lora_makes_answers_held_out_likelier_than_the_base_has_them(
    tmp_path: Path, long: bool
) -> None:
    done = await carried_out("job", tmp_path, long=long)
    model, tokenizer = loaded(done)
    adapted = mean_loss(model, tokenizer, done.held_out)
    with model.disable_adapter():
        base = mean_loss(model, tokenizer, done.held_out)
    assert done.trained.validation_loss == pytest.approx(adapted, rel=1e-3)
    assert adapted < (0.5 if long else 0.9) * base


@pytest.mark.req("T1", "T2")
async def test_dpo_ranks_pairs_held_out_better_than_the_base(tmp_path: Path, long: bool) -> None:
    done = await carried_out("dpo", tmp_path, long=long)
    loaded(done)
    assert done.trained.validation_loss is not None
    assert done.trained.validation_loss < 0.69  # log 2 where the adapter changes nothing
    after, before = (done.trained.metrics[measure] for measure in BETTER["dpo"])
    assert after > before if long else after >= before


@pytest.mark.req("T1", "T2")
async def test_kto_moves_the_log_odds_of_both_kinds_apart(tmp_path: Path, long: bool) -> None:
    done = await carried_out("kto", tmp_path, long=long)
    loaded(done)
    after, before = (done.trained.metrics[measure] for measure in BETTER["kto"])
    assert after > before
    gaps = [
        done.trained.metrics[f"{kind}desirable_log_odds"]
        - done.trained.metrics[f"{kind}undesirable_log_odds"]
        for kind in ("", "base_")
    ]
    assert gaps[0] > gaps[1]
