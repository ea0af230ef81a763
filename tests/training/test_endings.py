"""Reports, endings and health: how a trainer's end gets its name."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from services.training.adapters.checkpoints import newest_sealed, prune, seal
from services.training.adapters.endings import failure_of
from services.training.health import RunHealth, RunStopped
from services.training.reports import (
    Done,
    ExitCode,
    Failed,
    Step,
    TrainFailure,
    TrainResult,
    Working,
    ending_of,
    parse_report,
    progress_of,
)

RESULT = TrainResult(
    weights="sha256:" + "0" * 64,
    steps=4,
    train_loss=0.5,
    tokens_per_s=9.0,
    peak_memory_bytes=1,
    duration_s=1.0,
    rows=3,
)
DISK_FULL = TrainFailure(reason="disk_full", message="full", step=2)
STEP = Step(
    step=3,
    steps=9,
    loss=1.25,
    grad_norm=2.0,
    learning_rate=1e-3,
    tokens_per_s=100.0,
    eta_s=6.0,
    peak_memory_bytes=7,
)


@pytest.mark.parametrize(
    "report", [Working(message="saving"), STEP, Done(result=RESULT), Failed(failure=DISK_FULL)]
)
def test_every_report_survives_its_line(report):
    assert parse_report(report.model_dump_json()) == report


@pytest.mark.parametrize("line", [b"", b"hello", b"{}", b'{"kind": "step"}', b"[1]"])
def test_a_line_that_is_no_report_is_none(line):
    assert parse_report(line) is None


@pytest.mark.req("T4")
def test_a_step_is_progress_with_its_numbers():
    progress = progress_of(STEP)
    assert (progress.done, progress.total) == (3, 9)
    assert progress.values["loss"] == 1.25
    assert {"tokens_per_s", "eta_s", "peak_memory_bytes", "grad_norm"} <= progress.values.keys()


@pytest.mark.parametrize(
    ("returncode", "last", "cancelled", "expected"),
    [
        pytest.param(ExitCode.DONE, Done(result=RESULT), False, None, id="done"),
        pytest.param(ExitCode.DONE, Done(result=RESULT), True, None, id="done before the cancel"),
        pytest.param(ExitCode.CANCELLED, None, True, ("cancelled", False), id="cancelled"),
        pytest.param(-9, None, True, ("cancelled", False), id="killed after the grace period"),
        pytest.param(-9, None, False, ("trainer_crashed", True), id="killed by another"),
        pytest.param(
            ExitCode.STOPPED, Failed(failure=DISK_FULL), False, ("disk_full", False), id="named"
        ),
        pytest.param(ExitCode.CRASHED, None, False, ("trainer_crashed", False), id="no last words"),
        pytest.param(
            ExitCode.DONE, None, False, ("trainer_crashed", False), id="0 without a result"
        ),
    ],
)
def test_an_ending_is_told_from_exit_code_last_report_and_our_own_doing(
    returncode, last, cancelled, expected
):
    ending = ending_of(returncode, last, step=2, cancelled=cancelled, stderr_tail="Traceback: x")
    if expected is None:
        assert ending == RESULT
    else:
        assert isinstance(ending, TrainFailure)
        assert (ending.reason, ending.retryable) == expected


@contextmanager
def full_device() -> Iterator[BinaryIO]:
    """/dev/full, opened and never named to a library: one that saves by rename would replace it."""
    with os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb", buffering=0) as out:
        assert stat.S_ISCHR(os.fstat(out.fileno()).st_mode)
        yield out


def write_to_the_full_device() -> None:
    with full_device() as out:
        out.write(b"x")


def pickle_tensors_to_the_full_device() -> None:
    import torch

    with full_device() as out:
        torch.save({"a": torch.zeros(1 << 20)}, out)


def save_safetensors_as_on_a_full_disk() -> None:
    from safetensors import SafetensorError

    # the message is Rust's own for ENOSPC; provoking it takes a full file system
    raise SafetensorError(
        "Error while serializing: I/O error: No space left on device (os error 28)"
    )


def index_nothing() -> None:
    empty: list[int] = []
    empty.pop()


def ask_for_a_petabyte() -> None:
    import torch

    torch.empty(1 << 48)


@pytest.mark.req("T3")
@pytest.mark.parametrize(
    ("accident", "reason"),
    [
        (write_to_the_full_device, "disk_full"),
        (save_safetensors_as_on_a_full_disk, "disk_full"),
        (pickle_tensors_to_the_full_device, "disk_full"),
        (ask_for_a_petabyte, "out_of_memory"),
        (lambda: bytearray(1 << 60), "out_of_memory"),
        (index_nothing, "trainer_crashed"),
    ],
)
def test_accidents_of_the_libraries_get_their_names(accident, reason):
    with pytest.raises(Exception) as caught:  # noqa: PT011  (each library has its own)
        accident()
    failure = failure_of(caught.value, 5, disk_is_full=True)
    assert failure.reason == reason
    assert failure.step == 5
    assert failure.mend


@pytest.mark.req("T3")
@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_the_run(loss):
    with pytest.raises(RunStopped, match="step 7") as stop:
        RunHealth().check_loss(7, loss)
    assert stop.value.reason == "not_a_number"


@pytest.mark.req("T3")
@pytest.mark.parametrize(
    ("norm", "reason"),
    [(math.nan, "not_a_number"), (math.inf, "gradient_explosion"), (3000.0, "gradient_explosion")],
)
def test_a_gradient_that_no_run_survives_stops_it(norm, reason):
    health = RunHealth()
    for step in range(1, 9):
        health.check_gradient(step, 2.0)
    with pytest.raises(RunStopped) as stop:
        health.check_gradient(9, norm)
    assert stop.value.reason == reason


@pytest.mark.req("T3")
def test_the_usual_ups_and_downs_of_gradients_are_no_explosion():
    health = RunHealth()
    for step, norm in enumerate([8.0, 4.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.4, 5.0, 60.0, 0.1], 1):
        health.check_gradient(step, norm)


def checkpoint(root: Path, step: int) -> Path:
    folder = root / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "weights").write_bytes(b"w" * step)
    return folder


@pytest.mark.req("T4")
def test_only_sealed_and_whole_checkpoints_count(tmp_path):
    assert newest_sealed(tmp_path) is None
    for step in (4, 8, 12):
        seal(checkpoint(tmp_path, step))
    checkpoint(tmp_path, 16)
    assert newest_sealed(tmp_path) == tmp_path / "checkpoint-12"
    (tmp_path / "checkpoint-12" / "weights").write_bytes(b"torn")
    assert newest_sealed(tmp_path) == tmp_path / "checkpoint-8"


@pytest.mark.req("T4")
def test_pruning_keeps_the_newest_two_complete_ones(tmp_path):
    for step in (4, 8, 12):
        seal(checkpoint(tmp_path, step))
    checkpoint(tmp_path, 16)
    prune(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint-8", "checkpoint-12"}
