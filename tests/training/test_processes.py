"""One training in two processes: gloo on this machine's CPU, as torchrun starts them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from contracts.preference import PreferenceParameters
from services.training.adapters.crew import ROOT
from services.training.adapters.methods import method
from services.training.health import RunStopped
from services.training.plan import PLAN_FILE, TrainerPlan
from services.training.reports import Done, Step, TrainResult, parse_report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


SHARDED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
}
"""As `accelerate launch` says it; deploy/training/multi-node-sharded.yaml has it in words."""


def launched(module: list[str], processes: int, **variables: str) -> str:
    """The standard output of a module, started alone or by torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", *module]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def carried_out(folder, plan, processes: int, **variables: str) -> list:
    folder.mkdir(exist_ok=True)
    (folder / PLAN_FILE).write_text(plan.model_dump_json())
    said = launched(["services.training.adapters.trainer", str(folder)], processes, **variables)
    return [report for line in said.splitlines() if (report := parse_report(line))]


@pytest.mark.req("T6")
def test_two_processes_lose_what_one_loses_step_by_step(tmp_path, make_plan):
    plan = without_dropout(make_plan(8, learning_rate=5e-3))
    one, two = carried_out(tmp_path / "one", plan, 1), carried_out(tmp_path / "two", plan, 2)
    losses = [[r.loss for r in reports if isinstance(r, Step)] for reports in (one, two)]
    assert len(losses[0]) == 8
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[0][-1] < losses[0][0]
    ends = [[r for r in reports if isinstance(r, Done)] for reports in (one, two)]
    assert [len(end) for end in ends] == [1, 1]
    assert ends[1][0].result.validation_loss == pytest.approx(
        ends[0][0].result.validation_loss, rel=1e-3
    )
    assert (tmp_path / "two" / "adapter" / "adapter_model.safetensors").is_file()


def without_dropout(plan: TrainerPlan, **changes: Any) -> TrainerPlan:
    """Whose masks are drawn by each process for its own rows."""
    lora = plan.recipe.lora.model_copy(update={"dropout": 0.0})
    return plan.model_copy(
        update={"recipe": plan.recipe.model_copy(update={"lora": lora} | changes)}
    )


def losses_of(reports: list) -> list[float]:
    return [report.loss for report in reports if isinstance(report, Step)]


def result_of(reports: list) -> TrainResult:
    [done] = [report for report in reports if isinstance(report, Done)]
    return done.result


@pytest.mark.req("T1", "T4", "T6")
@pytest.mark.parametrize(
    ("recipe", "moved"),
    [pytest.param("sft", "full", id="every-weight"), pytest.param("lora", "lora", id="lora")],
)
def test_the_trainer_shards_a_base_resumes_and_loses_what_one_process_loses(
    tmp_path, make_plan, recipe, moved
):
    """The whole way: FSDP2 by accelerate, sharded checkpoints, and the adapter at the end."""
    plan = without_dropout(
        make_plan(6, learning_rate=5e-3, checkpoint_every=3), method=recipe, parameters=moved
    )
    one = carried_out(tmp_path / "one", plan, 1)
    work = tmp_path / "two"
    two = carried_out(work, plan, 2, **SHARDED)
    checkpoints = sorted(path.name for path in (work / "checkpoints").iterdir())
    assert checkpoints == ["checkpoint-3", "checkpoint-6"]
    written = work / "checkpoints" / "checkpoint-3" / "pytorch_model_fsdp_0"
    sizes = [path.stat().st_size for path in written.glob("*.distcp")]
    assert len(sizes) == 2
    assert max(sizes) < 0.6 * sum(sizes)  # each held about half
    assert losses_of(one)[-1] < losses_of(one)[0]
    assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-3)

    def again() -> list:
        shutil.rmtree(work / "adapter")
        (work / "result.json").unlink()
        return carried_out(work, plan, 2, **SHARDED)

    finished = again()  # as if it was killed before the adapter was written
    assert losses_of(finished) == []
    results = [result_of(one), result_of(two), result_of(finished)]
    assert [result.resumed_from for result in results] == [None, None, 6]
    if moved == "full":
        shutil.rmtree(work / "checkpoints" / "checkpoint-6")  # as if it was killed after step 5
        resumed = again()
        assert losses_of(resumed) == pytest.approx(losses_of(two)[3:], rel=1e-3)
        results.append(result_of(resumed))
        assert results[-1].resumed_from == 3
    for result in results[1:]:
        assert result.validation_loss == pytest.approx(results[0].validation_loss, rel=1e-2)
        assert result.metrics == pytest.approx(results[0].metrics, rel=1e-2)
    assert results[1].weights == results[2].weights
    assert (work / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.req("T6")
@pytest.mark.parametrize("name", ["qlora", "dpo"])
def test_what_cannot_be_sharded_is_refused_by_name(session, make_plan, monkeypatch, name):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    plan = without_dropout(make_plan(2), method=name, preference=PreferenceParameters())
    pairs = session().work / "pairs.jsonl"
    rows = [json.loads(line) | {"rejected": "no"} for line in plan.train.read_text().splitlines()]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = plan.model_copy(update={"train": pairs, "validation": None})
    with pytest.raises(RunStopped, match="reads weights whole"):
        method(name)(session(plan))


@pytest.mark.req("T6")
@pytest.mark.parametrize(
    ("name", "kind"), [("multi-node", "MULTI_GPU"), ("multi-node-sharded", "FSDP")]
)
def test_accelerate_reads_the_configuration_for_several_machines(name, kind):
    config = load_config_from_file(str(ROOT / "deploy" / "training" / f"{name}.yaml"))
    assert config.distributed_type == kind
    assert config.num_processes % config.num_machines == 0
    asked = {key.upper(): str(value) for key, value in config.fsdp_config.items()}
    if kind == "FSDP":  # what two processes were shown with above
        assert asked.items() >= {k: v for k, v in SHARDED.items() if k in asked}.items()
        assert asked.keys() >= SHARDED.keys() - {"ACCELERATE_USE_FSDP"}
