"""A tiny random Llama with a real chat template, and a dataset it can learn in seconds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.base import digest_of
from contracts.job import Hyperparameters, LoraParameters
from contracts.training import Recipe
from services.training.adapters.session import Session
from services.training.plan import TrainerPlan
from services.training.reports import Step
from shared.models import base_digest, tokenizer_digest
from shared.testing.tiny_model import build_tiny_llama

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama over bytes, saved as transformers saves any base."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "Tiny-Llama"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|im_start|>", "<|im_end|>"]
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(specials)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=specials[0], eos_token=specials[1], pad_token=specials[1]
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.2,  # with 0.02 a random model answers nothing but noise
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A three-layer Llama with a few merges in its vocabulary, for what it must really learn."""
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("dataset")
    rows = [
        {
            "id": f"r{i}",
            "messages": [{"role": "user", "content": f"say {'a' * (i % 17)}"}],
            "target": json.dumps({"name": "say", "arguments": {"n": i % 3}}),
        }
        for i in range(44)
    ]
    paths = {"train": folder / "train.jsonl", "validation": folder / "validation.jsonl"}
    paths["train"].write_text("".join(json.dumps(r) + "\n" for r in rows[:40]))
    paths["validation"].write_text("".join(json.dumps(r) + "\n" for r in rows[40:]))
    return paths


@pytest.fixture(scope="session")
def make_plan(base: Path, dataset: dict[str, Path]) -> Callable[..., TrainerPlan]:
    def make(steps: int = 16, **train: float) -> TrainerPlan:
        settings = {"learning_rate": 2e-2, "batch_size": 4, "checkpoint_every": 4} | train
        return TrainerPlan(
            recipe=Recipe(
                method="lora",
                base=base_digest(base),
                tokenizer=tokenizer_digest(base),
                dataset=digest_of(dataset["train"].read_bytes()),
                lora=LoraParameters(r=4, alpha=8, dropout=0.1),
                train=Hyperparameters(**settings),
                versions={},
            ),
            base=base,
            base_label="Tiny-Llama",
            train=dataset["train"],
            validation=dataset["validation"],
            steps=steps,
            threads=1,
        )

    return make


class Notebook:
    """A report channel that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.step = 0

    def working(self, message: str, step: int | None = None) -> None:
        self.step = self.step if step is None else step

    def send(self, report: Step) -> None:
        self.steps.append(report)
        self.step = report.step


@pytest.fixture
def one_thread():
    """As the plans of these tests say; tiny matrices only lose by more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def session(tmp_path, make_plan):
    def make(plan=None, name="work") -> Session:
        work = tmp_path / name
        work.mkdir(exist_ok=True)
        return Session(
            work=work,
            plan=plan or make_plan(6),
            channel=Notebook(),
            is_cancelled=threading.Event().is_set,
        )

    return make
