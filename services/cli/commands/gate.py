"""`sluice gate`: evaluation gates alone, on an adapter's folder or on a served model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def gate(
    name: Annotated[str, typer.Argument(help="G1 to G7, G12, or all.")],
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
            help="JSON Lines of held-out rows; of training rows for G7. G2, G5 and G6 have theirs. "
            "[the job's]"
        ),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(help="JSON Lines of training rows, for G7. [the job's first source]"),
    ] = None,
    job: Annotated[
        Path | None,
        typer.Option(help="A job file: its behaviour, thresholds, G5 tasks and rows."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="The endpoint of a named candidate, up to /v1. [the serving of `up`]"),
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(help="How an answer is judged. [the job's, or exact_match]")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="The longest answer. [the job's, or 128]")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Items of each task of G5. [the job's, or all]")
    ] = None,
    canaries: Annotated[
        Path | None, typer.Option(help="The dataset's canaries.jsonl, for G7.")
    ] = None,
    merged: Annotated[
        Path | None,
        typer.Option(help="For G2: the checkpoint the adapter was merged into, by any tool."),
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
    """Run one gate, or all with their seconds, in anyone's CI.

    An adapter's folder is served here until the gates have spoken. OPENAI_API_KEY opens the
    endpoint of a named candidate. Exit code: 0 passed, 3 failed, 4 inconclusive, 2 bad input.
    """
    import itertools
    import os
    import subprocess
    import sys
    import tempfile

    from services.cli import gating
    from services.cli.session import settings_here

    settings = settings_here()
    words = [sys.executable, "-m", "services.evaluation.alone", name.upper()]
    with tempfile.TemporaryDirectory() as folder:
        given = {
            "--suite": suite,
            "--train": train,
            "--scorer": scorer,
            "--max-tokens": max_tokens,
            "--limit": limit,
            "--canaries": canaries,
            "--garak": garak,
            "--junit": junit,
            "--markdown": markdown,
        }
        chosen = gating.of_job(job, Path(folder)) if job else {}
        chosen |= {option: str(value) for option, value in given.items() if value is not None}
        words += itertools.chain.from_iterable(chosen.items())
        adapter = None if url else gating.adapter_folder(candidate)
        if merged and adapter is None:
            raise typer.BadParameter("--merged needs the adapter's folder as --candidate")
        if adapter is None:
            key = os.environ.get("OPENAI_API_KEY", "unused")
            words += ["--url", url or settings.serving_url]
            words += ["--candidate", candidate, "--base", base or gating.BASE]
            done = subprocess.run(words, env=gating.environment(OPENAI_API_KEY=key), check=False)
        else:
            wanted = str(merged) if merged else base
            checkpoint = gating.checkpoint_folder(wanted, adapter, settings.home.resolve())
            words += ["--merged"] if merged else []
            words += ["--adapter", str(adapter), "--checkpoint", str(checkpoint)]
            words += ["--candidate", gating.CANDIDATE, "--base", gating.BASE]
            with gating.engine(checkpoint, adapter) as here:
                told = gating.environment(OPENAI_API_KEY=here.key)
                done = subprocess.run([*words, "--url", here.url], env=told, check=False)
    raise typer.Exit(done.returncode)
