"""Loading the frozen teacher, checked against the recipe, for its logits alone."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM

from contracts.distillation import DistillationParameters
from services.training.health import RunStopped
from services.training.plan import TrainerPlan
from shared.models import base_digest
from shared.vocabulary import vocabulary_difference


def distillation_of(plan: TrainerPlan) -> DistillationParameters:
    """What a distillation reads of its recipe. Raises RunStopped if it is not there."""
    recipe = plan.recipe
    if recipe.lora is None or recipe.distillation is None:
        raise RunStopped(
            "method_unavailable",
            "the recipe has no lora or no distillation parameters",
            "set method.lora and method.distillation",
        )
    return recipe.distillation


def load_teacher(plan: TrainerPlan) -> Any:
    """The teacher in float32, frozen, from safetensors alone.

    Raises RunStopped if it is gone, is not the recipe's, or reads token ids unlike the student.
    """
    named = distillation_of(plan).teacher
    folder = plan.teacher
    if folder is None or not (folder / "config.json").is_file():
        raise RunStopped(
            "base_missing",
            f"no checkpoint of the teacher {named.name} at {folder}",
            "put the model folder back, or name another in method.distillation.teacher",
        )
    if named.digest is not None and base_digest(folder) != named.digest:
        raise RunStopped(
            "base_missing",
            f"the teacher at {folder} is not the one the recipe names (by digest)",
            "restore the checkpoint, or submit the job again to learn from the present one",
        )
    if difference := vocabulary_difference(plan.base, folder):
        raise RunStopped(
            "method_unavailable",
            f"logits of {named.name} do not fit the student: {difference}",
            "set method.distillation.objective to sequence, with the teacher's endpoint",
        )
    teacher: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    return teacher.eval().requires_grad_(requires_grad=False)
