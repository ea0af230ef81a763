"""One training in two processes: gloo on this machine's CPU, as torchrun starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from services.training.adapters.supervisor import ROOT
from services.training.plan import PLAN_FILE
from services.training.reports import Done, Step, parse_report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def launched(module: list[str], processes: int) -> str:
    """The standard output of a module, started alone or by torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", *module]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def carried_out(folder, plan, processes: int) -> list:
    folder.mkdir()
    (folder / PLAN_FILE).write_text(plan.model_dump_json())
    said = launched(["services.training.adapters.trainer", str(folder)], processes)
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
