"""The adapter artifact: safetensors, PEFT's config, the recipe and the fingerprints. No paths."""

from __future__ import annotations

import json
import shutil
from itertools import chain, islice
from pathlib import Path
from typing import Any

from services.training.adapters.fingerprints import PROMPTS, fingerprint
from services.training.adapters.session import Session, Trained
from services.training.adapters.tokens import read_rows
from services.training.plan import TrainerPlan, recipe_bytes
from services.training.result import ADAPTER, WEIGHTS
from shared.models import file_digest


def write_adapter(session: Session, trained: Trained) -> str:
    """Write `adapter/` in the work folder, whole or not at all; the digest of its weights."""
    part, final = session.work / (ADAPTER + ".part"), session.work / ADAPTER
    for leftover in (part, final):
        shutil.rmtree(leftover, ignore_errors=True)
    part.mkdir()

    session.channel.working("writing the adapter")
    _save_weights(trained.model, part, session.plan.base_label)
    (part / "recipe.json").write_bytes(recipe_bytes(session.plan.recipe))

    session.channel.working("taking fingerprints")
    prints = fingerprint(trained.model, trained.tokenizer, _prompts(session.plan))
    _write_json(part / "fingerprints.json", [p.model_dump(mode="json") for p in prints])

    part.rename(final)
    return file_digest(final / WEIGHTS)


def _save_weights(model: Any, folder: Path, base_label: str) -> None:
    for config in model.peft_config.values():
        config.base_model_name_or_path = base_label
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # the registry writes the card
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()  # PEFT keeps a set: its order differs by process
    _write_json(path, config)


def _prompts(plan: TrainerPlan) -> list[Any]:
    validation = read_rows(plan.validation) if plan.validation is not None else iter(())
    return list(islice(chain(validation, read_rows(plan.train)), PROMPTS))


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False))
