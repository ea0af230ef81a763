"""`sluice --help` is quick, and importing the command line loads nothing heavy."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "faststream", "nats", "pydantic", "httpx", "fastapi", "rich")


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    code = (
        f"import sys, services.cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_takes_less_than_half_a_second_of_processor_time() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "--help"], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert "submit" in done.stdout
    assert spent_s < 0.5


@pytest.mark.req("P8")
@pytest.mark.parametrize(
    "command",
    [
        "up",
        "submit",
        "diagnose",
        "watch",
        "runs",
        "show",
        "cancel",
        "retry",
        "approve",
        "withdraw",
        "observe",
        "revocations",
        "compare",
        "card",
        "verify",
        "alerts",
        "remedies",
        "dead",
        "schema",
        "doctor",
        "provision",
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    from typer.testing import CliRunner

    from services.cli.main import app

    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert "Usage" in done.output
