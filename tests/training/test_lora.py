"""The LoRA recipe in this process: determinism, named endings, the loss by hand."""

from __future__ import annotations

import json

import pytest

from services.training.adapters.checkpoints import newest_sealed, step_of
from services.training.adapters.methods import method
from services.training.bucketing import parts
from services.training.health import RunStopped

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def adapter_of(trained) -> dict[str, bytes]:
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(trained.model)
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


@pytest.mark.req("T5")
def test_the_same_recipe_twice_gives_the_same_weights(session):
    train = method("lora")
    first, second = (adapter_of(train(session(name=name))) for name in ("first", "second"))
    assert first == second


@pytest.mark.req("T5")
def test_another_seed_gives_other_weights(session, make_plan):
    train = method("lora")
    first = adapter_of(train(session(make_plan(2), "first")))
    second = adapter_of(train(session(make_plan(2, seed=1), "second")))
    assert first != second


@pytest.mark.req("T4")
def test_a_run_killed_after_its_last_step_takes_no_step_more(session):
    train = method("lora")
    trained = train(session())
    again = session()
    reread = train(again)
    assert again.channel.steps == []
    assert reread.resumed_from == 6
    assert adapter_of(reread) == adapter_of(trained)
    assert reread.train_loss == pytest.approx(trained.train_loss)


@pytest.mark.req("T3")
@pytest.mark.parametrize("rate", [1e4, 1e30])
def test_a_learning_rate_far_too_high_stops_with_a_name_and_a_good_checkpoint(
    session, make_plan, rate
):
    import torch
    from safetensors.torch import load_file

    lost = session(make_plan(60, learning_rate=rate, checkpoint_every=1, warmup_share=0.5))
    with pytest.raises(RunStopped) as stop:
        method("lora")(lost)
    assert stop.value.reason in ("not_a_number", "gradient_explosion")
    assert "learning_rate" in stop.value.mend
    kept = newest_sealed(lost.checkpoints)
    assert kept is not None
    assert step_of(kept) == lost.channel.step >= 1
    for tensor in load_file(kept / "adapter_model.safetensors").values():
        assert torch.isfinite(tensor).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"method": "rumination"}, "method_unavailable", id="a method we lack"),
        pytest.param({"lora": None}, "method_unavailable", id="no rank"),
        pytest.param({"base": "sha256:" + "0" * 64}, "base_missing", id="another base"),
    ],
)
@pytest.mark.req("T1")
def test_a_recipe_that_cannot_be_carried_out_stops_with_a_name(session, make_plan, change, reason):
    plan = make_plan(2)
    plan = plan.model_copy(update={"recipe": plan.recipe.model_copy(update=change)})
    with pytest.raises(RunStopped) as stop:
        method(plan.recipe.method)(session(plan))
    assert stop.value.reason == reason
    assert stop.value.mend


def test_rows_that_do_not_fit_are_left_out_and_when_none_is_left_the_run_stops(session, make_plan):
    with pytest.raises(RunStopped, match="40 exceed max_length") as stop:
        method("lora")(session(make_plan(2, max_length=16)))
    assert stop.value.reason == "dataset_missing"


@pytest.mark.req("T2")
def test_the_loss_is_that_of_the_answer_tokens_by_hand(base, dataset):
    """Mean of −log p(token) over answer and end-of-turn tokens, from the plain model's logits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.utils import add_fused_lm_head

    from services.training.adapters.completion_head import add_completion_head
    from services.training.adapters.tokens import IGNORED, encode, read_rows

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    first, second = list(read_rows(dataset["train"]))[3:5]
    examples = [encode(tokenizer, first), encode(tokenizer, second)]
    answer = [i for i, label in enumerate(examples[0].labels) if label != IGNORED]
    assert tokenizer.decode([examples[0].input_ids[i] for i in answer]) == (
        first.target + "<|im_end|>"
    )

    by_hand = []
    for example in examples:
        with torch.no_grad():
            logits = model(torch.tensor([example.input_ids])).logits[0]
        for position, token in enumerate(example.labels):
            if token != IGNORED:
                row = logits[position - 1].double()
                by_hand.append(float(row.logsumexp(0) - row[token]))

    width = max(len(e.input_ids) for e in examples)
    ids = torch.full((2, width), tokenizer.pad_token_id)
    labels = torch.full((2, width), IGNORED)
    mask = torch.zeros(2, width, dtype=torch.long)
    for i, example in enumerate(examples):
        n = len(example.input_ids)
        ids[i, :n], labels[i, :n] = torch.tensor(example.input_ids), torch.tensor(example.labels)
        mask[i, :n] = 1
    inputs = {"input_ids": ids, "labels": labels, "attention_mask": mask}

    fields = ("log_probs", "entropy", "is_top1")
    add_fused_lm_head(model, outputs=fields)
    theirs = model(**inputs, fused_lm_head=True)
    theirs.loss.backward()
    gradient = model.model.layers[0].mlp.up_proj.weight.grad.clone()
    model.zero_grad()
    assert add_completion_head(model)
    ours = model(**inputs, fused_lm_head=True)
    ours.loss.backward()

    assert ours.loss.item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)
    assert torch.allclose(model.model.layers[0].mlp.up_proj.weight.grad, gradient, atol=1e-6)
    for field in (*fields, "label_mask"):
        assert torch.allclose(
            getattr(ours, field).float(), getattr(theirs, field).float(), atol=1e-5
        )
    assert model(**inputs).loss.item() == pytest.approx(ours.loss.item(), rel=1e-5)


@pytest.mark.req("T5")
def test_bfloat16_is_for_the_steps_alone_and_repeats_too(session, make_plan):
    """What is saved and fingerprinted is float32: a float32 model says the same."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from services.training.adapters.artifact import write_adapter

    plan = make_plan(6, precision="bfloat16")
    first = session(plan, "first")
    trained = method("lora")(first)
    again = method("lora")(session(plan, "second"))
    assert adapter_of(trained) == adapter_of(again)
    assert adapter_of(trained) != adapter_of(method("lora")(session(make_plan(6), "float32")))

    write_adapter(first, trained)
    folder = first.work / "adapter"
    reloaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(plan.base), folder)
    for content in json.loads((folder / "fingerprints.json").read_text()):
        with torch.no_grad():
            logits = reloaded.eval()(torch.tensor([content["prompt_token_ids"]])).logits[0, -1]
        found = logits.log_softmax(-1)[content["top_token_ids"]]
        assert torch.allclose(found, torch.tensor(content["top_logprobs"]), atol=1e-4)


@pytest.mark.req("T2")
@pytest.mark.timeout(300)
def test_a_batch_in_parts_has_the_loss_and_the_gradient_of_the_whole(
    session, make_plan, monkeypatch
):
    from services.training.adapters import sft

    plan = make_plan(3, batch_size=16)
    plan = plan.model_copy(
        update={
            "recipe": plan.recipe.model_copy(
                update={"lora": plan.recipe.lora.model_copy(update={"dropout": 0.0})}
            )
        }
    )
    counts: list[int] = []

    def counted(lengths: list[int], most: int) -> list[list[int]]:
        found = parts(lengths, most)
        counts.append(len(found))
        return found

    monkeypatch.setattr(sft, "parts", counted)
    runs = {}
    for tokens in (10_000, 400):
        monkeypatch.setattr(sft, "PART_TOKENS", tokens)
        work = session(plan, f"work-{tokens}")
        method("lora")(work)
        runs[tokens] = [(step.loss, step.grad_norm) for step in work.channel.steps]
    assert set(counts[:3]) == {1}
    assert min(counts[3:]) > 1
    for whole, cut_up in zip(runs[10_000], runs[400], strict=True):
        assert cut_up == pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize("parameters", ["lora", "full", "qlora"])
def test_whichever_weights_move_logits_are_made_where_labels_are(
    session, make_plan, monkeypatch, parameters
):
    """In training, in validation, and of what serves: TRL's head scores every position on a CPU."""
    from trl.trainer import utils as library

    from services.training.adapters import completion_head

    def everywhere(*_: object, **__: object) -> None:
        raise AssertionError("every position was scored")

    scored: list[int] = []

    def counted(rows, *args):
        scored.append(len(rows))
        return described(rows, *args)

    described = completion_head._described
    monkeypatch.setattr(completion_head, "_described", counted)
    monkeypatch.setattr(library._ChunkedLogProbFunction, "apply", everywhere)
    plan = make_plan(2)
    recipe = plan.recipe.model_copy(update={"method": "sft", "parameters": parameters})
    trained = method("sft")(session(plan.model_copy(update={"recipe": recipe})))
    assert trained.validation_loss is not None
    answers = 4 * len('{"name": "say", "arguments": {"n": 0}}<')  # bytes, and an end token
    assert len(scored) == 2 + (1 if parameters == "lora" else 2)  # steps, then the validation
    assert set(scored) == {answers}
