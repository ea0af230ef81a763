"""How the command line reports: results to stdout, errors to stderr with their mend.

Exit codes follow sysexits where it has one: 2 for invalid input (as the option parser itself), 69
(EX_UNAVAILABLE) when the broker or serving cannot be reached, 1 for any other error.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import typer
import typer.core

if TYPE_CHECKING:
    from shared.errors import SluiceError

INVALID = 2
UNAVAILABLE = 69
INTERRUPTED = 130


class ReportingGroup(typer.core.TyperGroup):
    """Turns the errors we raise on purpose into `error:` and `mend:` and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        from shared.errors import SluiceError

        try:
            return super().invoke(ctx)
        except SluiceError as error:
            report(error)
            raise typer.Exit(exit_code(error)) from error
        except KeyboardInterrupt as stop:
            raise typer.Exit(INTERRUPTED) from stop


def exit_code(error: SluiceError) -> int:
    from services.cli.serving import ServingAway
    from services.cli.session import BrokerAway
    from shared.errors import InvalidInput

    if isinstance(error, InvalidInput):
        return INVALID
    return UNAVAILABLE if isinstance(error, BrokerAway | ServingAway) else 1


def report(error: SluiceError) -> None:
    """Say what is wrong and how to mend it, on stderr."""
    from shared.errors import InvalidInput

    if isinstance(error, InvalidInput):
        for problem in error.problems:
            print(f"error: {problem.where}: {problem.problem}", file=sys.stderr)
            print(f"mend: {problem.mend}", file=sys.stderr)
        return
    print(f"error: {error}", file=sys.stderr)
    if error.mend:
        print(f"mend: {error.mend}", file=sys.stderr)


def emit(value: object) -> None:
    """One JSON object on one line of stdout."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False), flush=True)


def note(text: str) -> None:
    """News for the person, which is not the result."""
    print(text, file=sys.stderr, flush=True)
