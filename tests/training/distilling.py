"""A small teacher that has learned its task, a student that has not, and plans to distil it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contracts.base import digest_of
from contracts.data import Row
from contracts.distillation import DistillationParameters
from contracts.job import Hyperparameters, LoraParameters
from contracts.training import Recipe
from services.training.plan import TrainerPlan
from shared.models import base_digest, tokenizer_digest
from tests.training.judged import ANSWERS, request, write


def demonstration(i: int) -> Row:
    """Row `i`, with the better answer; `expected` checks a final answer."""
    time, text = request(i)
    good = ANSWERS[time][0]
    return Row.model_validate(
        {
            "id": f"d{i}",
            "messages": [{"role": "user", "content": text}],
            "target": good,
            "expected": good,
        }
    )


def teach(folder: Path, rows: list[Row], *, steps: int = 150) -> Path:
    """Train every weight of the checkpoint in `folder` on `rows`, in place: a teacher."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from services.training.adapters.tokens import encode

    torch.set_num_threads(1)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    examples = [encode(tokenizer, row) for row in rows]
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        chosen = torch.randint(len(examples), (8,), generator=generator).tolist()
        batch = [examples[i] for i in chosen]
        longest = max(len(e.input_ids) for e in batch)
        ids = torch.tensor([e.input_ids + [0] * (longest - len(e.input_ids)) for e in batch])
        labels = torch.tensor([e.labels + [-100] * (longest - len(e.labels)) for e in batch])
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def answer_of(checkpoint: Path) -> Callable[[list[dict[str, Any]], int], str]:
    """Samples the checkpoint's answer to a chat, by a seed."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from shared.chat import prompt_ids

    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint).eval()

    def answer(messages: list[dict[str, Any]], seed: int) -> str:
        ids = torch.tensor([prompt_ids(tokenizer, messages)])
        torch.manual_seed(seed)
        said = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=True, top_k=0
        )
        return str(tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True))

    return answer


def mean_kl(teacher: Path, student: Any, rows: list[Row], shown: list[Row] | None = None) -> float:
    """Mean over the rows' completion tokens of KL(teacher || student), by plain arithmetic.

    `shown` are the rows with the turns that the teacher reads, where not the student's.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from services.training.adapters.tokens import encode

    tokenizer: Any = AutoTokenizer.from_pretrained(teacher)
    knowing: Any = AutoModelForCausalLM.from_pretrained(teacher).eval()

    def log_probs(model: Any, row: Row) -> torch.Tensor:
        example = encode(tokenizer, row)
        answer = sum(label != -100 for label in example.labels)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example.input_ids])).logits
        found: torch.Tensor = logits[0, -answer - 1 : -1].double().log_softmax(-1)
        return found

    total, tokens = 0.0, 0
    for row, read in zip(rows, shown or rows, strict=True):
        p, q = log_probs(knowing, read), log_probs(student, row)
        total += float((p.exp() * (p - q)).sum())
        tokens += len(p)
    return total / tokens


def distillation(objective: str, teacher: Path | None, **more: Any) -> DistillationParameters:
    """Parameters that name `teacher`, or an endpoint where answers are learned."""
    found: dict[str, Any] = {"name": "Tiny-Teacher", "licence": "MIT"}
    if teacher is not None:
        found |= {"checkpoint": str(teacher), "digest": base_digest(teacher)}
    if objective != "logits":
        found["endpoint"] = {"model": "tiny-teacher"}
    return DistillationParameters.model_validate({"objective": objective, "teacher": found} | more)


def plan(
    student: Path,
    folder: Path,
    parameters: DistillationParameters,
    *,
    teacher: Path | None = None,
    train: list[Row],
    validation: list[Row],
    steps: int = 60,
    **hyperparameters: Any,
) -> TrainerPlan:
    """A plan for rows that are written to `folder`."""
    settings = {"learning_rate": 1e-2, "batch_size": 8, "checkpoint_every": 10} | hyperparameters
    return TrainerPlan(
        recipe=Recipe(
            method=parameters.recipe,
            base=base_digest(student),
            tokenizer=tokenizer_digest(student),
            dataset=digest_of(json.dumps([row.id for row in train]).encode()),
            lora=LoraParameters(r=8, alpha=16),
            distillation=parameters,
            train=Hyperparameters.model_validate(settings),
            versions={},
        ),
        base=student,
        base_label="tiny-llama",
        train=write(folder / "train.jsonl", train),
        validation=write(folder / "validation.jsonl", validation),
        teacher=teacher,
        steps=steps,
        threads=1,
    )
