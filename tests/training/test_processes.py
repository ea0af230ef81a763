"""One training in two processes: gloo on this machine's CPU, as torchrun starts them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from services.training.adapters.supervisor import ROOT
from services.training.plan import PLAN_FILE
from services.training.reports import Done, Step, parse_report

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
    plan = make_plan(8, learning_rate=5e-3)
    plan = plan.model_copy(
        update={
            "recipe": plan.recipe.model_copy(
                update={"lora": plan.recipe.lora.model_copy(update={"dropout": 0.0})}
            )
        }
    )
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


@pytest.mark.req("T6")
def test_every_weight_sharded_over_two_processes_loses_what_one_loses(tmp_path, make_plan):
    """torch's FSDP2 over gloo, with our frozen parts and our head; each holds half."""
    (tmp_path / PLAN_FILE).write_text(make_plan(6, learning_rate=5e-3).model_dump_json())
    losses = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        launched(["tests.training.sharded", str(tmp_path / PLAN_FILE), str(out)], processes)
        losses.append(json.loads(out.read_text()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][-1] < 0.9 * losses[0][0]


@pytest.mark.req("T1", "T4", "T6")
def test_the_trainer_shards_every_weight_resumes_and_loses_what_one_process_loses(
    tmp_path, make_plan
):
    """The whole way: FSDP2 by accelerate, sharded checkpoints, and the adapter at the end."""
    plan = make_plan(6, learning_rate=5e-3, checkpoint_every=3)
    recipe = plan.recipe.model_copy(update={"method": "sft", "parameters": "full"})
    plan = plan.model_copy(update={"recipe": recipe})
    one = carried_out(tmp_path / "one", plan, 1)
    work = tmp_path / "two"
    two = carried_out(work, plan, 2, **SHARDED)
    checkpoints = sorted(path.name for path in (work / "checkpoints").iterdir())
    assert checkpoints == ["checkpoint-3", "checkpoint-6"]
    shards = list((work / "checkpoints" / "checkpoint-3" / "pytorch_model_fsdp_0").glob("*.distcp"))
    assert len(shards) == 2

    shutil.rmtree(work / "checkpoints" / "checkpoint-6")  # as if it was killed after step 5
    shutil.rmtree(work / "adapter")
    (work / "result.json").unlink()
    resumed = carried_out(work, plan, 2, **SHARDED)

    losses = [[r.loss for r in reports if isinstance(r, Step)] for reports in (one, two, resumed)]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[2] == pytest.approx(losses[1][3:], rel=1e-3)
    assert losses[0][-1] < losses[0][0]
    results = [r.result for reports in (one, two, resumed) for r in reports if isinstance(r, Done)]
    assert [result.resumed_from for result in results] == [None, None, 3]
    for result in results[1:]:
        assert result.validation_loss == pytest.approx(results[0].validation_loss, rel=1e-2)
        assert result.metrics == pytest.approx(results[0].metrics, rel=1e-2)
    assert (work / "adapter" / "adapter_model.safetensors").is_file()


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
