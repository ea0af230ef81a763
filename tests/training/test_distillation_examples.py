"""The example jobs of distillation: valid, fit for their recipe, and trained to their end."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.base import digest_of
from contracts.training import Recipe
from services.training.adapters.methods import METHODS
from services.training.adapters.supervisor import LOG_FILE
from services.training.adapters.tokens import read_rows
from services.training.plan import TrainerPlan
from services.training.reports import TrainResult
from services.training.workshop import IMPLEMENTED
from shared.doctrine.fit import unfit_rows
from shared.models import base_digest, tokenizer_digest
from shared.testing.tiny_model import build_tiny_llama
from tests.training.test_examples import FOLDER, job_of
from tests.training.test_trainer import carry_out

NAMES = sorted(path.stem for path in FOLDER.glob("*_distillation.yaml"))


def rows_of(name: str) -> Path:
    return FOLDER / job_of(name).data[0].uri


@pytest.mark.req("T1")
@pytest.mark.parametrize("name", NAMES)
def test_an_example_job_is_valid_and_its_rows_fit_its_recipe(name: str) -> None:
    job = job_of(name)
    assert job.method.name in IMPLEMENTED
    assert job.method.recipe(job.method.name) == name
    assert name in METHODS
    assert list(unfit_rows(name, read_rows(rows_of(name)))) == []
    heldout = list(read_rows(FOLDER / job.evaluation.heldout.uri))
    assert len(heldout) >= job.evaluation.minimum_items


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.req("T1")
async def test_the_logit_example_trains_to_its_end_in_the_trainer_s_process(
    tmp_path: Path,
) -> None:
    name, rows = "logit_distillation", rows_of("logit_distillation")
    job, student = job_of(name), build_tiny_llama(tmp_path / "student")
    teacher = build_tiny_llama(tmp_path / "teacher", seed=1)
    plan = TrainerPlan(
        recipe=Recipe(
            method=name,
            base=base_digest(student),
            tokenizer=tokenizer_digest(student),
            dataset=digest_of(rows.read_bytes()),
            lora=job.method.lora,
            distillation=job.method.distillation,
            train=job.method.train.model_copy(update={"precision": "float32"}),
            versions={},
        ),
        base=student,
        base_label="tiny-llama",
        train=rows,
        validation=rows,
        teacher=teacher,
        steps=6,
        threads=1,
    )
    ending, _ = await carry_out(tmp_path / "work", plan)
    assert isinstance(ending, TrainResult), (tmp_path / "work" / LOG_FILE).read_text()
    assert ending.steps == 6
    assert ending.metrics["kl"] > 0
