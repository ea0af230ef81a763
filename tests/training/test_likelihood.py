"""SFT, instruction tuning and continued pretraining: the losses by hand, and what they improve."""

from __future__ import annotations

import json
import math

import pytest

from contracts.data import Row
from services.training.adapters.methods import method
from services.training.adapters.supervisor import LOG_FILE
from services.training.reports import TrainFailure, TrainResult
from tests.training.by_hand import log_probs
from tests.training.judged import pair
from tests.training.test_lora import adapter_of
from tests.training.test_trainer import carry_out, trainer_of
from tests.training.texts import conversation, document, likelihood_plan

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def well_read(small, tmp_path_factory):
    """The small base once it has read general texts: it has something to forget."""
    import shutil

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from services.training.adapters.texts import pack_rows
    from shared.models import TOKENIZER_FILES

    folder = tmp_path_factory.mktemp("models") / "well-read"
    model = AutoModelForCausalLM.from_pretrained(small)
    tokenizer = AutoTokenizer.from_pretrained(small)
    rows = [document(i, "general") for i in range(64)]
    corpus = pack_rows(tokenizer, rows, max_length=64)
    blocks = torch.tensor([e.input_ids for e in corpus.examples if len(e.input_ids) == 64])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    torch.manual_seed(0)
    for _ in range(120):
        chosen = blocks[torch.randperm(len(blocks))[:8]]
        loss = model(chosen, labels=chosen).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (small / name).is_file():
            shutil.copy(small / name, folder / name)
    return folder


@pytest.mark.req("T1", "T2")
def test_the_loss_of_a_conversation_is_that_of_the_assistant_s_turns_by_hand(
    session, small, tmp_path
):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from services.training.adapters.conversations import encode_conversation
    from services.training.adapters.full_weights import EveryWeight
    from services.training.adapters.sft import CompletionTrainer
    from services.training.adapters.tokens import IGNORED, Corpus

    tokenizer = AutoTokenizer.from_pretrained(small)
    model = AutoModelForCausalLM.from_pretrained(small)
    rows = [conversation(3), conversation(7)]
    examples = [encode_conversation(tokenizer, row) for row in rows]
    losses = []
    for row, example in zip(rows, examples, strict=True):
        seen = [i for i, label in enumerate(example.labels) if label != IGNORED]
        assert tokenizer.decode([example.input_ids[i] for i in seen]) == (
            f"{row.messages[2].content}<|im_end|>{row.target}<|im_end|>"
        )
        losses += [-p for p in log_probs(model, example.input_ids, seen)]

    plan = likelihood_plan(
        small, tmp_path, method="instruction", train=rows, validation=rows, steps=1
    )
    work = session(plan)
    start = EveryWeight().start(work)
    trainer = CompletionTrainer(start.model, tokenizer, Corpus(examples, 0), work, peft_config=None)
    assert trainer.mean_loss(Corpus(examples, 0)) == pytest.approx(
        sum(losses) / len(losses), rel=1e-5
    )


def test_an_earlier_turn_that_the_template_rewrites_is_not_looked_at(small):
    from transformers import AutoTokenizer

    from services.training.adapters.conversations import encode_conversation
    from services.training.adapters.tokens import IGNORED

    tokenizer = AutoTokenizer.from_pretrained(small)
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{ message['content'] }}",
        "{{ 'done' if message['role'] == 'assistant' else message['content'] }}",
    )
    row = conversation(3)
    example = encode_conversation(tokenizer, row)
    seen = [token for token in example.labels if token != IGNORED]
    assert tokenizer.decode(seen) == f"{row.target}<|im_end|>"


@pytest.mark.req("T1", "T2")
def test_the_loss_of_packed_texts_is_that_of_every_token_by_hand(session, small, tmp_path):
    """A conversation among them counts whole: it is rehearsal, not an answer to learn."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from services.training.adapters.full_weights import EveryWeight
    from services.training.adapters.sft import CompletionTrainer
    from services.training.adapters.texts import pack_rows
    from services.training.adapters.tokens import encode

    tokenizer = AutoTokenizer.from_pretrained(small)
    model = AutoModelForCausalLM.from_pretrained(small)
    rows = [document(0, "domain"), document(1, "general"), conversation(1)]
    end = [tokenizer.eos_token_id]
    tokens = tokenizer(rows[0].target)["input_ids"] + end
    tokens += tokenizer(rows[1].target)["input_ids"] + end
    tokens += encode(tokenizer, rows[2]).input_ids
    losses = []
    for start in range(0, len(tokens) - 1, 31):
        block = tokens[start : start + 32]
        losses += [-p for p in log_probs(model, block, range(1, len(block)))]
    assert len(losses) == len(tokens) - 1

    plan = likelihood_plan(small, tmp_path, method="cpt", train=rows, validation=rows, steps=1)
    work = session(plan)
    corpus = pack_rows(tokenizer, rows, max_length=32)
    assert [len(e.input_ids) for e in corpus.examples[:-1]] == [32] * (len(corpus.examples) - 1)
    trainer = CompletionTrainer(
        EveryWeight().start(work).model, tokenizer, corpus, work, peft_config=None
    )
    assert trainer.mean_loss(corpus) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.req("T1")
def test_the_product_of_rank_r_is_the_nearest_by_the_singular_values():
    """Eckart and Young: what is lost is the norm of the singular values left out."""
    import torch

    from services.training.adapters.full_weights import nearest_product

    torch.manual_seed(0)
    change = torch.randn(40, 24) @ torch.diag(0.7 ** torch.arange(24.0)) @ torch.randn(24, 24)
    values = torch.linalg.svdvals(change)
    for rank in (1, 4, 24):
        a, b = nearest_product(change, rank, seed=0)
        assert (a.shape, b.shape) == ((rank, 24), (40, rank))
        lost = (change - b @ a).square().sum()
        assert float(lost) == pytest.approx(float(values[rank:].square().sum()), rel=1e-2, abs=1e-6)
    a, b = nearest_product(change[:, :3], 8, seed=0)
    assert torch.allclose(b @ a, change[:, :3], atol=1e-4)


@pytest.mark.req("T1", "T2")
@pytest.mark.parametrize("parameters", ["full", "lora", "qlora"])
def test_sft_moves_the_weights_it_is_told_to_and_lowers_the_held_out_loss(
    session, small, tmp_path, parameters
):
    plan = likelihood_plan(
        small,
        tmp_path,
        method="sft",
        train=[pair(i).model_copy(update={"rejected": None}) for i in range(96)],
        validation=[pair(i).model_copy(update={"rejected": None}) for i in range(200, 240)],
        steps=40,
        parameters=parameters,
        learning_rate=3e-3 if parameters == "full" else 1e-2,
    )
    work = session(plan)
    trained = method("sft")(work)
    first = work.channel.steps[0].loss
    assert trained.validation_loss < 0.2 * first
    if parameters == "full":
        assert 0.5 < trained.metrics["change_kept"] <= 1
        assert trained.metrics["validation_loss_whole"] < 0.2 * first
        assert trained.metrics["validation_loss_whole"] != trained.validation_loss
    else:
        assert "change_kept" not in trained.metrics


@pytest.mark.req("T4", "T5", "T8")
async def test_a_killed_full_weight_run_resumes_to_the_same_adapter_which_serves_as_any_other(
    small, tmp_path
):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from shared.bundles import inspect_adapter

    plan = likelihood_plan(
        small,
        tmp_path,
        method="instruction",
        train=[conversation(i) for i in range(48)],
        validation=[conversation(i) for i in range(48, 56)],
        steps=12,
        checkpoint_every=3,
    )
    (tmp_path / "whole").mkdir()
    whole, _ = await carry_out(tmp_path / "whole", plan)
    assert isinstance(whole, TrainResult), (tmp_path / "whole" / LOG_FILE).read_text()
    killed = tmp_path / "killed"

    async def kill() -> None:
        trainer_of(killed).kill()

    ending, _ = await carry_out(killed, plan, at_step=5, act=kill)
    assert isinstance(ending, TrainFailure)
    resumed, _ = await carry_out(killed, plan)
    assert isinstance(resumed, TrainResult)
    assert resumed.resumed_from >= 3
    assert resumed.weights == whole.weights

    folder = killed / "adapter"
    assert inspect_adapter(folder).r == 8
    base = AutoModelForCausalLM.from_pretrained(small, dtype=torch.float32)
    served = PeftModel.from_pretrained(base, folder).eval()
    for content in json.loads((folder / "fingerprints.json").read_text()):
        with torch.no_grad():
            logits = served(torch.tensor([content["prompt_token_ids"]])).logits[0, -1]
        found = logits.log_softmax(-1)[content["top_token_ids"]]
        assert found.tolist() == pytest.approx(content["top_logprobs"], abs=1e-3)


@pytest.mark.req("T4")
def test_a_full_weight_run_killed_after_its_last_step_takes_no_step_more(session, small, tmp_path):
    rows = [conversation(i) for i in range(24)]
    plan = likelihood_plan(
        small, tmp_path, method="instruction", train=rows, validation=rows, steps=4
    )
    trained = method("instruction")(session(plan))
    again = session(plan)
    reread = method("instruction")(again)
    assert again.channel.steps == []
    assert reread.resumed_from == 4
    assert adapter_of(reread) == adapter_of(trained)


@pytest.mark.req("T1", "T2")
def test_instruction_tuning_learns_every_turn(session, small, tmp_path):
    from services.training.adapters.conversations import encode_conversation
    from services.training.adapters.tokens import IGNORED

    rows = [conversation(i) for i in range(96)]
    plan = likelihood_plan(
        small, tmp_path, method="instruction", train=rows[:80], validation=rows[80:], steps=40
    )
    work = session(plan)
    trained = method("instruction")(work)
    assert trained.validation_loss < 0.3 * work.channel.steps[0].loss
    model, tokenizer = trained.model.eval(), trained.tokenizer
    row = rows[90]
    example = encode_conversation(tokenizer, row)
    seen = [i for i, label in enumerate(example.labels) if label != IGNORED]
    tuned = log_probs(model, example.input_ids, seen)
    with model.disable_adapter():
        plain = log_probs(model, example.input_ids, seen)
    turn = len(tokenizer(row.messages[2].content)["input_ids"])
    assert sum(tuned[:turn]) > 0.5 * sum(plain[:turn])
    assert sum(tuned[turn + 1 :]) > 0.5 * sum(plain[turn + 1 :])


@pytest.mark.req("T1", "T2", "C9")
def test_pretraining_learns_the_domain_and_rehearsal_reduces_what_it_forgets(
    session, well_read, tmp_path
):
    domain = [document(i, "domain") for i in range(48)]
    general = [document(i, "general") for i in range(16)]
    held = [document(i, kind) for kind in ("domain", "general") for i in range(64, 84)]

    def measured(name: str, rows: list[Row]) -> dict[str, float]:
        plan = likelihood_plan(
            well_read,
            tmp_path / name,
            method="cpt",
            train=rows,
            validation=held,
            steps=60,
            rank=16,
            max_length=64,
        )
        return method("cpt")(session(plan, name)).metrics

    alone, rehearsed = measured("alone", domain), measured("rehearsed", domain + general)
    for found in (alone, rehearsed):
        assert found["domain_perplexity"] < 0.2 * found["base_domain_perplexity"]
    forgotten = math.log(alone["general_perplexity"] / alone["base_general_perplexity"])
    kept = math.log(rehearsed["general_perplexity"] / rehearsed["base_general_perplexity"])
    assert forgotten > 0.5
    assert kept < 0.5 * forgotten
