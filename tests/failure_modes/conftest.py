"""The laboratory: a tiny base that knows its world, adapters on it, and our engine over both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contracts.base import digest_of
from contracts.data import Row
from contracts.job import Behaviour, Hyperparameters, LoraParameters
from contracts.training import Recipe
from services.evaluation.gates.judgement import Judgement
from services.evaluation.subject import Alone, Subject
from services.serving.directory import KnownAdapter
from services.training.adapters.fingerprints import fingerprint
from services.training.adapters.tokens import IGNORED, encode
from services.training.plan import recipe_bytes
from shared.asking import Asker
from shared.models import base_digest, tokenizer_digest
from shared.testing.tiny_model import train_tokenizer
from tests.failure_modes import world
from tests.serving.live_server import Server

TENANT = "acme"
Adapter = Callable[[str, Sequence[Row]], Path]


@pytest.fixture(scope="session")
def lab_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that answers all of `world.everything` right."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=256,
                tie_word_embeddings=True,
                initializer_range=0.1,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        _learn(model, tokenizer, world.everything(), steps=320, rate=6e-3)
    folder = tmp_path_factory.mktemp("lab") / "base"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def adapter(lab_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """An adapter trained on rows, with its recipe and fingerprints; each name is trained once."""
    root, made = tmp_path_factory.mktemp("adapters"), dict[str, Path]()

    def train(name: str, rows: Sequence[Row]) -> Path:
        if name not in made:
            made[name] = _adapt(lab_base, root / name, rows)
        return made[name]

    return train


@pytest.fixture(scope="session")
def healthy(adapter: Adapter) -> Path:
    """The task in every frame, and a rehearsal of all that the base knows."""
    return adapter("healthy", [*world.calls(), *world.dressed_calls(), *world.everything()])


def _adapt(base: Path, folder: Path, rows: Sequence[Row]) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base),
            LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        _learn(model, tokenizer, rows, steps=120, rate=1e-2)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    recipe = Recipe(
        method="lora",
        base=base_digest(base),
        tokenizer=tokenizer_digest(base),
        dataset=digest_of(folder.name.encode()),
        lora=LoraParameters(r=16, alpha=32),
        train=Hyperparameters(),
        versions={},
    )
    (folder / "recipe.json").write_bytes(recipe_bytes(recipe))
    prints = fingerprint(model, tokenizer, rows[:3])
    text = json.dumps([one.model_dump(mode="json") for one in prints])
    (folder / "fingerprints.json").write_text(text)
    return folder


def _learn(model: Any, tokenizer: Any, rows: Sequence[Row], *, steps: int, rate: float) -> None:
    import torch

    examples = [encode(tokenizer, row) for row in world.shuffled(rows)]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model.train()
    for step in range(steps):
        drawn = [examples[(step * 32 + k) % len(examples)] for k in range(32)]
        width = max(len(e.input_ids) for e in drawn)
        ids = torch.full((len(drawn), width), tokenizer.pad_token_id)
        labels = torch.full((len(drawn), width), IGNORED)
        for at, example in enumerate(drawn):
            ids[at, : len(example.input_ids)] = torch.tensor(example.input_ids)
            labels[at, : len(example.labels)] = torch.tensor(example.labels)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    torch.set_num_threads(threads)


def _tokenizer() -> Any:
    rows = [*world.everything(), *world.calls(), *world.dressed_calls()]
    texts = [t for r in rows for t in (r.messages[0].content, r.target or "")]
    return train_tokenizer([*texts, "user\nassistant\n"], size=900)


@pytest.fixture(scope="session")
def judge(lab_base: Path) -> Iterator[Callable[..., Any]]:
    """`await judge(gate, adapter, rows)`: one gate alone, over real HTTP, by our engine."""
    with judging(lab_base) as asked:
        yield asked


@contextmanager
def judging(base: Path, *, merged: bool = False) -> Iterator[Callable[..., Any]]:
    """The gates by an engine over the checkpoint `base`."""
    from services.serving.engine.llama_engine import EngineConfig, LlamaEngine

    engine = LlamaEngine(base, EngineConfig(slots=16, threads=1, max_adapters=32))
    folders: dict[str, Path] = {}

    async def asked(
        gate: str, folder: Path, rows: Sequence[Row] | None = None, served: Path | None = None
    ) -> Judgement:
        """`served` is what the engine loads in the adapter's place."""
        digest = digest_of(str(served or folder).encode())
        folders[digest] = served or folder
        name = (served or folder).name
        server.directory.know(name, KnownAdapter(tenant=TENANT, adapter=digest))
        subject = Subject(
            url=f"{server.url}/v1",
            key=f"sk-service.{TENANT}",
            base="base",
            candidate=name,
            adapter=folder,
            checkpoint=base,
            merged=merged,
        )
        behaviour = Behaviour(description=gate, target=1.0, max_tokens=32, scorer=_scorer(rows))
        async with Asker(subject.url, subject.key) as asker:
            return await Alone(subject=subject, asker=asker, behaviour=behaviour).judge(gate, rows)

    with Server(engine, folders.__getitem__) as server:
        yield asked
    engine.close()


def _scorer(rows: Sequence[Row] | None) -> str:
    return "tool_call" if rows and isinstance(rows[0].expected, dict) else "exact_match"
