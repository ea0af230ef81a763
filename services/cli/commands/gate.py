"""`sluice gate`: one evaluation gate alone, against any OpenAI-compatible endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def gate(
    name: Annotated[str, typer.Argument(help="G1, G3, G4, G6, G7 or G12.")],
    candidate: Annotated[str, typer.Option(help="The candidate's name at the endpoint.")],
    base: Annotated[str, typer.Option(help="The base's name at the endpoint.")] = "base",
    suite: Annotated[
        Path | None,
        typer.Option(help="JSON Lines of held-out rows; of training rows for G7. G6 has its own."),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The endpoint, up to /v1. [the serving of `up`]")
    ] = None,
    scorer: Annotated[str, typer.Option(help="How an answer is judged.")] = "exact_match",
    max_tokens: Annotated[int, typer.Option(help="The longest answer.")] = 128,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown here.")] = None,
) -> None:
    """Run one gate in anyone's CI; OPENAI_API_KEY opens the endpoint.

    Exit code: 0 passed, 3 failed, 4 inconclusive, 2 bad input.
    """
    import os
    import subprocess
    import sys

    from services.cli.session import settings_here

    words = [name.upper(), "--candidate", candidate, "--base", base]
    words += ["--url", url or settings_here().serving_url]
    words += ["--scorer", scorer, "--max-tokens", str(max_tokens)]
    for option, path in (("--suite", suite), ("--junit", junit), ("--markdown", markdown)):
        words += [option, str(path)] if path else []
    told = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "services.evaluation.alone", *words]
    raise typer.Exit(subprocess.run(command, env=told, check=False).returncode)
