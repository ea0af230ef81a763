"""`sluice gate`: one evaluation gate alone, on an adapter's folder or on a served model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def gate(
    name: Annotated[str, typer.Argument(help="G1 to G7, or G12.")],
    candidate: Annotated[
        str, typer.Option(help="The adapter's folder, or a model's name at the endpoint.")
    ],
    base: Annotated[
        str | None,
        typer.Option(
            help="The checkpoint: a folder, a name, or a digest [what the adapter was trained on]; "
            "or the base's name at the endpoint [base]."
        ),
    ] = None,
    suite: Annotated[
        Path | None,
        typer.Option(
            help="JSON Lines of held-out rows; of training rows for G7. G2, G5 and G6 have theirs."
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="The endpoint of a named candidate, up to /v1. [the serving of `up`]"),
    ] = None,
    scorer: Annotated[str, typer.Option(help="How an answer is judged.")] = "exact_match",
    max_tokens: Annotated[int, typer.Option(help="The longest answer.")] = 128,
    limit: Annotated[int | None, typer.Option(help="Items of G5's own suite. [all]")] = None,
    canaries: Annotated[
        Path | None, typer.Option(help="The dataset's canaries.jsonl, for G7.")
    ] = None,
    garak: Annotated[
        str | None,
        typer.Option(
            help="Probes for G6, as garak's --spec names them; needs a garak of your own."
        ),
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown here.")] = None,
) -> None:
    """Run one gate in anyone's CI. An adapter's folder is served here until the gate has spoken.

    OPENAI_API_KEY opens the endpoint of a named candidate. Exit code: 0 passed, 3 failed,
    4 inconclusive, 2 bad input.
    """
    import os
    import subprocess
    import sys

    from services.cli import gating
    from services.cli.session import settings_here

    words = [sys.executable, "-m", "services.evaluation.alone", name.upper()]
    words += ["--scorer", scorer, "--max-tokens", str(max_tokens)]
    for option, value in (
        ("--suite", suite),
        ("--limit", limit),
        ("--canaries", canaries),
        ("--garak", garak),
        ("--junit", junit),
        ("--markdown", markdown),
    ):
        words += [option, str(value)] if value is not None else []
    settings = settings_here()
    adapter = None if url else gating.adapter_folder(candidate)
    if adapter is None:
        key = os.environ.get("OPENAI_API_KEY", "unused")
        words += ["--url", url or settings.serving_url]
        words += ["--candidate", candidate, "--base", base or gating.BASE]
        done = subprocess.run(words, env=gating.environment(OPENAI_API_KEY=key), check=False)
    else:
        checkpoint = gating.checkpoint_folder(base, adapter, settings.home.resolve())
        words += ["--adapter", str(adapter), "--checkpoint", str(checkpoint)]
        words += ["--candidate", gating.CANDIDATE, "--base", gating.BASE]
        with gating.engine(checkpoint, adapter) as here:
            told = gating.environment(OPENAI_API_KEY=here.key)
            done = subprocess.run([*words, "--url", here.url], env=told, check=False)
    raise typer.Exit(done.returncode)
