"""The trainer process under its supervisor, on a tiny Llama: real processes, really killed."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import psutil
import pytest

from contracts.progress import Progress
from contracts.training import Fingerprint, Recipe
from services.training.adapters.checkpoints import newest_sealed, step_of
from services.training.adapters.supervisor import LOG_FILE, train
from services.training.plan import recipe_digest
from services.training.reports import TrainFailure, TrainResult
from services.training.result import read_result
from shared.errors import LeaseHeld
from shared.models import file_digest
from tests.training.apart import supervised

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # several processes load torch
STEPS = 16


async def carry_out(work, plan, *, at_step=None, act=None, cancelled=None):
    """Train; at the first progress of optimizer step `at_step`, call `act`."""
    progress: list[Progress] = []
    acted = False

    async def on_progress(event: Progress) -> None:
        nonlocal acted
        progress.append(event)
        if act is not None and not acted and event.done >= at_step and "loss" in event.values:
            acted = True
            await act()

    ending = await train(work, plan, on_progress, cancelled or asyncio.Event())
    return ending, progress


def trainer_of(work: Path) -> psutil.Process:
    """The running trainer process of `work`."""
    return next(
        child for child in psutil.Process().children(recursive=True) if str(work) in child.cmdline()
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_plan):
    """One uninterrupted run, shared by the tests that only read it."""
    work = tmp_path_factory.mktemp("finished")
    plan = make_plan(STEPS).model_copy(update={"precision_reason": "float32, as measured"})
    ending, progress = asyncio.run(carry_out(work, plan))
    assert isinstance(ending, TrainResult), (ending, (work / LOG_FILE).read_text())
    return work, plan, ending, progress


def losses(progress: list[Progress]) -> list[float]:
    return [event.values["loss"] for event in progress if event.message.startswith("step ")]


@pytest.mark.req("T1")
def test_lora_lowers_the_loss(finished):
    _, _, result, progress = finished
    assert len(losses(progress)) == STEPS
    assert result.train_loss < 0.8 * losses(progress)[0]
    assert result.validation_loss < 0.8 * losses(progress)[0]


@pytest.mark.req("T4")
def test_every_step_reports_its_numbers(finished):
    _, _, _, progress = finished
    steps = [event for event in progress if event.message.startswith("step ")]
    assert [event.done for event in steps] == list(range(1, STEPS + 1))
    assert steps[-1].total == STEPS
    assert steps[-1].values["eta_s"] == 0
    assert steps[-1].values["tokens_per_s"] > 0
    assert steps[-1].values["peak_memory_bytes"] > 50 * 1024**2
    messages = {event.message for event in progress}
    assert "precision: float32, as measured" in messages
    assert {"loading the base", "tokenizing the dataset", "taking fingerprints"} <= messages


@pytest.mark.req("T8")
def test_the_adapter_is_safetensors_beside_its_recipe_and_names_no_path(finished, base):
    work, plan, result, _ = finished
    adapter = work / "adapter"
    assert {path.name for path in adapter.iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "recipe.json",
        "fingerprints.json",
    }
    assert file_digest(adapter / "adapter_model.safetensors") == result.weights
    for path in adapter.glob("*.json"):
        assert str(base.parent) not in path.read_text()
        assert str(work) not in path.read_text()
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "Tiny-Llama"
    assert config["target_modules"] == sorted(config["target_modules"])
    recipe = Recipe.model_validate_json((adapter / "recipe.json").read_bytes())
    assert recipe_digest(recipe) == recipe_digest(plan.recipe)


@pytest.mark.req("T8", "G2")
def test_peft_loads_the_adapter_and_it_says_what_the_fingerprints_say(finished, base):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = finished[0] / "adapter"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    prints = json.loads((adapter / "fingerprints.json").read_text())
    assert len(prints) == 4
    for content in prints:
        taken = Fingerprint.model_validate(content)
        ids = torch.tensor([taken.prompt_token_ids])
        top = list(taken.top_token_ids)
        with torch.no_grad():
            adapted = model(ids).logits[0, -1].log_softmax(-1)[top]
            with model.disable_adapter():
                frozen = model(ids).logits[0, -1].log_softmax(-1)[top]
        assert torch.allclose(adapted, torch.tensor(taken.top_logprobs), atol=1e-4)
        assert torch.allclose(frozen, torch.tensor(taken.base_top_logprobs), atol=1e-4)
        assert not torch.allclose(adapted, frozen, atol=0.1)


@pytest.mark.req("T4", "T5", "P3")
async def test_killed_with_9_and_run_again_gives_the_very_same_weights(finished, tmp_path):
    _, plan, uninterrupted, _ = finished

    async def kill() -> None:
        trainer = trainer_of(tmp_path)
        trainer.suspend()  # or it may have finished by the time it is killed
        with pytest.raises(LeaseHeld):  # nobody else may work here meanwhile
            await carry_out(tmp_path, plan)
        trainer.kill()

    ending, _ = await carry_out(tmp_path, plan, at_step=6, act=kill)
    assert isinstance(ending, TrainFailure)
    assert ending.reason == "trainer_crashed"
    assert ending.retryable
    assert read_result(tmp_path) is None

    (tmp_path / "checkpoints" / "checkpoint-15").mkdir()  # as a kill while saving leaves it
    resumed, progress = await carry_out(tmp_path, plan)
    assert isinstance(resumed, TrainResult)
    assert resumed.resumed_from >= 4
    assert len(losses(progress)) == STEPS - resumed.resumed_from
    assert resumed.weights == uninterrupted.weights

    again, progress = await carry_out(tmp_path, plan)
    assert again == resumed
    assert progress == []


@pytest.mark.req("T4")
async def test_cancel_keeps_a_checkpoint_of_the_step_it_came_in(make_plan, tmp_path):
    cancelled = asyncio.Event()

    async def cancel() -> None:
        cancelled.set()

    plan = make_plan(4000, checkpoint_every=4000)
    ending, progress = await carry_out(tmp_path, plan, at_step=3, act=cancel, cancelled=cancelled)
    assert isinstance(ending, TrainFailure)
    assert ending.reason == "cancelled"
    kept = newest_sealed(tmp_path / "checkpoints")
    assert kept is not None
    assert 3 <= step_of(kept) == len(losses(progress)) < 4000


@pytest.mark.req("P3")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's parent-death signal")
def test_the_trainer_dies_with_its_supervisor(make_plan, tmp_path):
    with supervised(make_plan(), tmp_path) as supervisor:
        children = psutil.Process(supervisor.pid).children(recursive=True)
        trainer = next(child for child in children if str(tmp_path) in child.cmdline())
        supervisor.send_signal(signal.SIGKILL)
    trainer.wait(timeout=10)
    assert not trainer.is_running()
