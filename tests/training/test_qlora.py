"""QLoRA: a base in 4 bits while it trains, an adapter for the full base at the end."""

from __future__ import annotations

import json

import pytest

from services.training.adapters.methods import method
from services.training.adapters.supervisor import LOG_FILE
from services.training.health import RunStopped
from services.training.reports import TrainResult
from tests.training.judged import judged, plan
from tests.training.test_trainer import carry_out

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(300)]


@pytest.fixture
def make_qlora_plan(small, tmp_path):
    def make(steps=30, **more):
        rows = [judged(i) for i in range(240)]
        good = [row.model_copy(update={"desirable": None}) for row in rows if row.desirable]
        return plan(
            small,
            tmp_path,
            method="qlora",
            train=good[:96],
            validation=good[96:112],
            steps=steps,
            preference={"objective": "dpo"},
            **more,
        )

    return make


@pytest.mark.req("T1", "T2")
async def test_a_base_in_four_bits_teaches_an_adapter_that_the_full_base_can_serve(
    make_qlora_plan, small, tmp_path
):
    """In the trainer's own process; the served side is rebuilt here from the files alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    work = tmp_path / "work"
    ending, progress = await carry_out(work, make_qlora_plan())
    assert isinstance(ending, TrainResult), (work / LOG_FILE).read_text()
    first = next(p.values["loss"] for p in progress if "loss" in p.values)
    assert ending.validation_loss < 0.6 * first
    assert ending.metrics["validation_loss_4bit"] < 0.6 * first
    assert ending.metrics["validation_loss_4bit"] != ending.validation_loss

    base = AutoModelForCausalLM.from_pretrained(small, dtype=torch.float32)
    served = PeftModel.from_pretrained(base, work / "adapter").eval()
    for print_ in json.loads((work / "adapter" / "fingerprints.json").read_text()):
        with torch.no_grad():
            logits = served(torch.tensor([print_["prompt_token_ids"]])).logits[0, -1]
        found = logits.log_softmax(-1)[print_["top_token_ids"]]
        assert found.tolist() == pytest.approx(print_["top_logprobs"], abs=1e-3)


@pytest.mark.req("T1")
def test_the_blocks_are_stored_as_nf4_with_quantized_scales(session, make_qlora_plan):
    import torch
    from bitsandbytes.nn import Linear4bit

    from services.training.adapters.base import load_base
    from services.training.adapters.methods.qlora import nf4

    model, _ = load_base(make_qlora_plan(), quantization=nf4("float32"))
    layers = [m for m in model.modules() if isinstance(m, Linear4bit)]
    assert len(layers) == 3 * 7
    for layer in layers:
        assert layer.weight.dtype == torch.uint8
        assert layer.weight.quant_state.quant_type == "nf4"
        assert layer.weight.quant_state.nested


@pytest.mark.req("T1")
def test_a_paged_optimizer_is_refused_where_there_is_no_gpu(session, make_qlora_plan):
    with pytest.raises(RunStopped, match="paged optimizer") as stop:
        method("qlora")(session(make_qlora_plan(steps=2, optimizer="paged_adamw")))
    assert stop.value.reason == "method_unavailable"
    assert "adamw" in stop.value.mend


@pytest.mark.req("T7")
def test_a_trained_qlora_adapter_is_merged_and_evaluated_again(
    session, make_qlora_plan, small, tmp_path
):
    """ERRATA 19: the merged checkpoint answers as the served adapter, not as the 4-bit model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from services.training.adapters.artifact import write_adapter
    from services.training.adapters.tokens import encode, read_rows
    from shared.merging import read_source
    from shared.merging.merge import merge

    plan = make_qlora_plan()
    work = session(plan)
    trained = method("qlora")(work)
    write_adapter(work, trained)
    record = merge(small, [read_source(work.work / "adapter")], tmp_path / "merged")
    assert "evaluate it again" in record.re_evaluate

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    examples = [encode(tokenizer, row) for row in read_rows(plan.validation)]

    def loss(folder) -> float:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        total, tokens = 0.0, 0
        for example in examples:
            labels = torch.tensor([example.labels])
            scored = int((labels != -100).sum())
            with torch.no_grad():
                mean = model(torch.tensor([example.input_ids]), labels=labels).loss
            total, tokens = total + float(mean) * scored, tokens + scored
        return total / tokens

    again = loss(tmp_path / "merged")
    assert again == pytest.approx(trained.validation_loss, rel=1e-4)
    assert again != pytest.approx(trained.metrics["validation_loss_4bit"], rel=1e-3)
    assert again < 0.5 * loss(small)
