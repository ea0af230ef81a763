"""The example job of each method: valid, fit for its method, and trained to its end."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from contracts.base import digest_of
from contracts.data import Row
from contracts.job import AdaptationJob
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
from tests.training.judged import write
from tests.training.test_trainer import carry_out

FOLDER = Path(__file__).parents[2] / "examples" / "methods"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if "distillation" not in path.stem)
"""Those that learn from a teacher are in test_distillation_examples.py."""


def job_of(name: str) -> AdaptationJob:
    return AdaptationJob.model_validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))


def rows_of(job: AdaptationJob) -> list[Row]:
    return [row for source in job.data for row in read_rows(FOLDER / source.uri)]


def test_every_example_is_of_a_method_and_none_is_forgotten():
    assert set(NAMES) == {name for name in METHODS if "distillation" not in name}


@pytest.mark.req("T1")
@pytest.mark.parametrize("name", NAMES)
def test_an_example_job_is_valid_and_its_rows_fit_its_method(name):
    job = job_of(name)
    assert job.method.name in IMPLEMENTED
    assert job.method.recipe(job.method.name) == name
    rows = rows_of(job)
    assert list(unfit_rows(name, rows)) == []
    assert len(list(read_rows(FOLDER / job.evaluation.heldout.uri))) >= job.evaluation.minimum_items


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.req("T1")
@pytest.mark.parametrize("name", NAMES)
async def test_an_example_job_trains_to_its_end_in_the_trainer_s_process(name, tmp_path):
    job, small = job_of(name), build_tiny_llama(tmp_path / "tiny-llama")
    rows = write(tmp_path / "rows.jsonl", rows_of(job))
    plan = TrainerPlan(
        recipe=Recipe(
            method=name,
            base=base_digest(small),
            tokenizer=tokenizer_digest(small),
            dataset=digest_of(rows.read_bytes()),
            lora=job.method.lora,
            parameters=job.method.parameters,
            preference=job.method.preference,
            train=job.method.train.model_copy(update={"precision": "float32"}),
            versions={},
        ),
        base=small,
        base_label="tiny-llama",
        train=rows,
        validation=rows,
        steps=6,
        threads=1,
    )
    ending, _ = await carry_out(tmp_path / "work", plan)
    assert isinstance(ending, TrainResult), (tmp_path / "work" / LOG_FILE).read_text()
    assert ending.steps == 6
    files = {path.name for path in (tmp_path / "work" / "adapter").iterdir()}
    assert files == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "recipe.json",
        "fingerprints.json",
    }
