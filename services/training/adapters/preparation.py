"""From a curated dataset to a work folder a trainer can start in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer

from contracts.curation import DatasetCurated
from contracts.data import Row
from contracts.job import AdaptationJob, BaseModelRef
from contracts.preference import PpoParameters
from contracts.training import Recipe
from services.training.adapters.process import available_memory_bytes, has_accelerator
from services.training.adapters.tokens import read_rows
from services.training.bucketing import PART_TOKENS, largest_part
from services.training.memory import (
    TURN_TOKENS,
    ModelDimensions,
    estimate,
    require_memory,
)
from services.training.packing import block_count
from services.training.plan import (
    TrainerPlan,
    moving,
    optimizer_steps,
    processes_for,
    recipe_of,
    with_precision,
    work_folder,
)
from services.training.precision import PrecisionChoice, choice_for, chosen
from services.training.settings import TrainingSettings
from shared.artifacts import TrainingStore
from shared.models import base_digest, digest_cache, resolve_base, tokenizer_digest
from shared.precision import precision
from shared.waiting import ASLEEP

ROOT = Path(__file__).resolve().parents[3]
PROBE_S = 180.0
"""A precision that is not measured within this is chosen by the processor's flags."""
LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "bitsandbytes",
    "tokenizers",
    "safetensors",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A work folder with its data, the plan to carry out there, and the memory it will take."""

    work: Path
    plan: TrainerPlan
    memory: dict[str, int]
    """Part → bytes (D8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much there is to train on."""

    examples: int
    """Sequences of one pass over the data."""
    longest: int
    """Tokens of the longest one."""
    scored: int
    """Tokens of one that the loss looks at, at most."""
    rows: tuple[tuple[int, int], ...]
    """Both of each sequence; what is too long to be trained on counts as the longest that is."""


def prepare(
    job: AdaptationJob,
    curated: DatasetCurated,
    *,
    method: str,
    store: TrainingStore,
    settings: TrainingSettings,
) -> Prepared:
    """Resolve the base, name the recipe, fetch the data, and check that the machine can hold it.

    Raises InvalidInput (base, teacher or memory) and the store's errors. Calling it twice gives
    the same.
    """
    home = settings.home.resolve()
    base, cache = resolve_base(job.base, home), digest_cache(home)
    recipe = recipe_of(
        job,
        curated,
        method=method,
        base=base_digest(base, cache=cache),
        tokenizer=tokenizer_digest(base, cache=cache),
        versions={name: version(name) for name in LIBRARIES},
    )
    choice: PrecisionChoice | None = None
    if recipe.train.precision == "auto":
        measure = partial(measured, base, recipe, threads=settings.training_threads)
        choice = choice_for(recipe, home, measure)
        recipe = with_precision(recipe, choice.precision)
    work = work_folder(home, recipe)
    train = store.fetch(curated.train, work / "train.jsonl")
    validation = (
        store.fetch(curated.validation, work / "validation.jsonl") if curated.validation else None
    )
    sizes = sizes_of(recipe, list(read_rows(train)), token_counter(base))
    teacher = _teacher(recipe, home)
    processes = processes_for(recipe, settings.training_processes)
    # one process on CPUs works on a batch in parts, where answers are not compared with each other
    in_parts = recipe.preference is None and not has_accelerator() and processes == 1
    length = min(sizes.longest, recipe.train.max_length)
    of_each = estimate(
        _dimensions(base),
        method=recipe.method if recipe.preference or recipe.distillation else moving(recipe),
        lora=None if moving(recipe) == "full" else recipe.lora,
        batch_size=recipe.train.batch_size // processes,
        length=length,
        completion_length=sizes.scored,
        precision="bfloat16" if recipe.train.precision == "bfloat16" else "float32",
        teacher=_dimensions(teacher) if teacher is not None else None,
        part=largest_part(sizes.rows, recipe.train.batch_size, PART_TOKENS) if in_parts else None,
    )
    sharing = 1 if has_accelerator() else processes  # the machine's memory; GPUs have their own
    memory = {part: size * sharing for part, size in of_each.items()}
    require_memory(
        memory,
        available=available_memory_bytes(),
        batch_size=recipe.train.batch_size,
        at_once=max(1, PART_TOKENS // length) if in_parts else None,
    )
    plan = TrainerPlan(
        recipe=recipe,
        base=base,
        base_label=job.base.label,
        train=train,
        validation=validation,
        teacher=teacher,
        steps=optimizer_steps(sizes.examples, recipe.train),
        threads=settings.training_threads,
        processes=processes,
        precision_reason=str(choice) if choice else "",
    )
    return Prepared(work=work, plan=plan, memory=memory)


def measured(base: Path, recipe: Recipe, *, threads: int) -> PrecisionChoice:
    """Both precisions on this machine, in a process of its own: torch is not for this one.

    Where that fails the processor's flags choose, and the choice says why.
    """
    tokens = min(PART_TOKENS, recipe.train.batch_size * recipe.train.max_length)
    command = [sys.executable, "-m", "services.training.adapters.precision_probe", str(base)]
    command += ["--tokens", str(tokens), "--threads", str(threads)]
    command += ["--full"] if moving(recipe) == "full" else []
    environment = (
        os.environ
        | ASLEEP
        | {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
        }
    )
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PROBE_S, check=True
        )
        return chosen(json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        problem = f"the measurement took longer than {PROBE_S} s"
    except (subprocess.CalledProcessError, OSError, ValueError, LookupError) as error:
        problem = f"the measurement failed: {error}"
    return PrecisionChoice(precision=precision(), problem=problem)


def _teacher(recipe: Recipe, home: Path) -> Path | None:
    """The folder of the teacher whose logits are read. Raises InvalidInput if it is gone."""
    distillation = recipe.distillation
    if distillation is None or distillation.asks or distillation.teacher.checkpoint is None:
        return None
    return resolve_base(BaseModelRef(model=distillation.teacher.checkpoint), home)


def _dimensions(folder: Path) -> ModelDimensions:
    return ModelDimensions.of(json.loads((folder / "config.json").read_text()))


def token_counter(base: Path) -> Callable[[str], int]:
    """Counts tokens with the base's own vocabulary, without loading the base."""
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def sizes_of(recipe: Recipe, rows: Sequence[Row], count: Callable[[str], int]) -> Sizes:
    """What the recipe makes of `rows`."""
    if recipe.method == "cpt":  # packed end to end, every token scored
        tokens = sum(_text_tokens(row, count) for row in rows)
        block = min(tokens, recipe.train.max_length)
        blocks = block_count(tokens, recipe.train.max_length)
        return Sizes(examples=blocks, longest=block, scored=block, rows=((block, block),))
    sizes = row_sizes(rows, count)
    if recipe.method == "instruction":
        turns = [[m.content for m in row.messages if m.role == "assistant"] for row in rows]
        sizes = [
            (whole, scored + sum(map(count, contents)))
            for (whole, scored), contents in zip(sizes, turns, strict=True)
        ]
    if recipe.method == "ppo":  # it answers for itself, and every answer may be the longest
        ppo = recipe.preference.ppo if recipe.preference else None
        sampled = (ppo or PpoParameters()).answer_tokens
        sizes = [(whole + sampled, max(scored, sampled)) for whole, scored in sizes]
    most = recipe.train.max_length
    return Sizes(
        examples=len(rows),
        longest=max((whole for whole, _ in sizes), default=1),
        scored=max((scored for _, scored in sizes), default=1),
        rows=tuple((min(whole, most), min(scored, most)) for whole, scored in sizes),
    )


def _text_tokens(row: Row, count: Callable[[str], int]) -> int:
    """Of a document and its end token, or of a conversation as it is rendered."""
    if row.document is not None:
        return count(row.target or "") + 1
    return longest([row], count)[0]


def row_sizes(rows: Iterable[Row], count: Callable[[str], int]) -> list[tuple[int, int]]:
    """Token counts of each row, its chat template included, and of its longest answer."""
    sizes = []
    for row in rows:
        prompt = sum(count(m.content) + TURN_TOKENS for m in row.messages)
        tools = sum(count(json.dumps(t)) for t in row.tools)
        answer = max(count(row.target or ""), count(row.rejected or ""))
        sizes.append((prompt + tools + TURN_TOKENS + answer, answer))
    return sizes


def longest(rows: Iterable[Row], count: Callable[[str], int]) -> tuple[int, int]:
    """Token counts of the longest row, its chat template included, and of the longest answer."""
    sizes = row_sizes(rows, count)
    whole = max((tokens for tokens, _ in sizes), default=1)
    return whole, max((answer for _, answer in sizes), default=1)
