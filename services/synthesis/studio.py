"""The studio: fetch the seeds, seat the teachers, generate, put the rows away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from contracts.data import parse_row
from contracts.job import Teacher
from contracts.run import Run
from contracts.synthesis import RowsSynthesized
from services.synthesis.adapters.journal import Journal
from services.synthesis.adapters.openai_teacher import OpenAITeacher
from services.synthesis.generation import Advance, Plan, generate
from services.synthesis.teachers import Seat
from shared.artifacts import ArtifactStore
from shared.keys import service_key
from shared.settings import Settings


class Studio:
    """Synthesizes rows for runs."""

    def __init__(self, settings: Settings, artifacts: ArtifactStore) -> None:
        self._settings = settings
        self._artifacts = artifacts

    async def synthesize(self, run: Run, on_advance: Callable[[Advance], None]) -> RowsSynthesized:
        """Rows for the run's wish. A second call pays only for what the first did not get."""
        job, asked = run.job, run.synthesis_requested
        if job is None or job.synthesis is None or asked is None:
            raise ValueError(f"run {run.ref} asks for no synthesis")
        content = await asyncio.to_thread(self._artifacts.get, asked.seeds)
        seeds = [parse_row(line) for line in content.splitlines()]
        ports = [self._port(teacher, job.tenant) for teacher in job.synthesis.teachers]
        seats = [
            Seat(settings=teacher, port=port)
            for teacher, port in zip(job.synthesis.teachers, ports, strict=True)
        ]
        try:
            made = await generate(
                seeds,
                seats,
                Journal(self._journal(asked.seeds)),
                Plan(rows=asked.rows),
                on_advance=on_advance,
            )
        finally:
            for port in ports:
                await port.aclose()
        lines = b"".join(row.model_dump_json().encode() + b"\n" for row in made.rows)
        return RowsSynthesized(
            rows=await asyncio.to_thread(self._artifacts.put, lines),
            requested=asked.rows,
            accepted=len(made.rows),
            rejected=made.rejected,
            distinct_2=made.diversity.distinct_2,
        )

    def _journal(self, seeds: str) -> Path:
        return self._settings.home / "synthesis" / f"{seeds.removeprefix('sha256:')}.jsonl"

    def _port(self, teacher: Teacher, tenant: str) -> OpenAITeacher:
        if teacher.url is None:
            return OpenAITeacher(
                teacher.model,
                base_url=self._settings.serving_url,
                api_key=service_key(self._settings, tenant),
            )
        return OpenAITeacher(teacher.model, base_url=teacher.url)
