"""The trainer process: `python -m services.training.adapters.trainer WORK_FOLDER [--parent PID]`.

It reads `plan.json`, reports on standard output, and ends with an `ExitCode`. SIGTERM saves a
checkpoint first. Started again on the same folder it resumes; a finished run it only reports.
Heavy libraries load after the first report, so that no observer waits in silence.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from services.training.adapters.channel import Channel, peak_memory_bytes
from services.training.adapters.process import die_with_parent, lock_folder
from services.training.adapters.session import Cancelled, Session
from services.training.plan import PLAN_FILE, TrainerPlan
from services.training.reports import Done, ExitCode, Failed, TrainFailure, TrainResult
from services.training.result import read_result, write_result

_FULL_DISK_BYTES = 32 * 1024**2


def main(arguments: list[str] | None = None) -> int:
    """Run the plan of one work folder; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--parent", type=int, help="end when this process ends")
    given = parser.parse_args(arguments)
    if given.parent is not None:
        die_with_parent(given.parent)
    cancelled = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: cancelled.set())
    first = os.environ.get("RANK", "0") == "0"
    if first and lock_folder(given.work) is None:
        return ExitCode.BUSY
    plan = TrainerPlan.model_validate_json((given.work / PLAN_FILE).read_bytes())
    with Channel(plan.steps, speaks=first) as channel:
        session = Session(
            work=given.work, plan=plan, channel=channel, is_cancelled=cancelled.is_set
        )
        return _run(session)


def _run(session: Session) -> int:
    try:
        result = read_result(session.work) or _train(session)
        if result is None:
            return ExitCode.DONE  # the first process has it
    except Cancelled:
        return ExitCode.CANCELLED
    except Exception as error:
        traceback.print_exc()
        session.channel.send(Failed(failure=_failure(session, error)))
        return ExitCode.STOPPED
    session.channel.send(Done(result=result))
    return ExitCode.DONE


def _train(session: Session) -> TrainResult | None:
    """The result; None in a process that is not the first."""
    began_s = time.monotonic()
    if session.plan.precision_reason:
        session.channel.working(f"precision: {session.plan.precision_reason}")
    session.channel.working("loading the training libraries")
    _prepare_libraries(session.plan)
    from services.training.adapters import world
    from services.training.adapters.artifact import write_adapter
    from services.training.adapters.methods import method

    trained = method(session.plan.recipe.method)(session)
    if world.rank() > 0:
        return None
    weights = write_adapter(session, trained)
    result = TrainResult(
        weights=weights,
        steps=session.plan.steps,
        resumed_from=trained.resumed_from,
        train_loss=trained.train_loss,
        validation_loss=trained.validation_loss,
        metrics=trained.metrics,
        tokens_per_s=trained.tokens_per_s,
        peak_memory_bytes=peak_memory_bytes(),
        duration_s=time.monotonic() - began_s,
        rows=trained.rows,
        rows_too_long=trained.rows_too_long,
    )
    write_result(session.work, result)
    return result


def _prepare_libraries(plan: TrainerPlan) -> None:
    """Offline and with a fixed number of threads: sums, and so digests, depend on it."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    torch.set_num_threads(plan.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(plan.recipe.train.seed)  # the first A


def _failure(session: Session, error: Exception) -> TrainFailure:
    from services.training.adapters.endings import failure_of

    full = shutil.disk_usage(session.work).free < _FULL_DISK_BYTES
    return failure_of(error, session.channel.step, disk_is_full=full)


if __name__ == "__main__":
    sys.exit(main())
