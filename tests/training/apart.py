"""The training service's supervisor in a process of its own, to be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from services.training.plan import PLAN_FILE, TrainerPlan

ROOT = Path(__file__).parents[2]
CODE = """
import asyncio, pathlib, sys
from services.training.adapters.supervisor import train
from services.training.plan import PLAN_FILE, TrainerPlan
work = pathlib.Path(sys.argv[1])
plan = TrainerPlan.model_validate_json((work / PLAN_FILE).read_bytes())
async def say(progress): print(progress.message, flush=True)
asyncio.run(train(work, plan, say, asyncio.Event()))
"""


def supervised(plan: TrainerPlan, work: Path) -> subprocess.Popen[bytes]:
    """The plan's training, once a trainer has spoken."""
    (work / PLAN_FILE).write_text(plan.model_dump_json())
    service = subprocess.Popen(
        [sys.executable, "-c", CODE, str(work)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert service.stdout is not None
    service.stdout.readline()
    return service
