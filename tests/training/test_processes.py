"""One training in two processes: gloo on this machine's CPU, as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from services.training.adapters.supervisor import ROOT
from services.training.plan import PLAN_FILE
from services.training.reports import Done, Step, parse_report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def carried_out(folder, plan, processes: int) -> list:
    folder.mkdir()
    (folder / PLAN_FILE).write_text(plan.model_dump_json())
    trainer = ["-m", "services.training.adapters.trainer", str(folder)]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), *trainer]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [report for line in done.stdout.splitlines() if (report := parse_report(line))]


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
