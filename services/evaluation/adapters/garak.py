"""garak against our endpoint, by the garak that its user has installed (Derczynski et al. 2024).

It is no dependency of ours: it brings some forty clients of other vendors. We write the options of
its OpenAI-compatible generator, run it as a process of its own, and read its report (JSON Lines;
the entries of type `eval`, as garak 0.17 writes them).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.evaluation.gates.g6 import Probed
from shared.errors import PeerUnavailable, PermanentError

KEY_VARIABLE = "OPENAICOMPATIBLE_API_KEY"
_LAST_WORDS = 1500


def find_garak() -> Path:
    """The `garak` command. Raises PermanentError where there is none."""
    found = shutil.which("garak")
    if found is None:
        raise PermanentError(
            "there is no `garak` command on PATH",
            mend="install it apart from Sluiceway (`pipx install garak`) and put it on PATH, "
            "or leave --garak out",
        )
    return Path(found)


def command(garak: Path, *, url: str, model: str, spec: str, report: Path) -> list[str]:
    """The command line that probes `model` at `url` and writes `<report>.report.jsonl`."""
    options = {
        "openai": {"OpenAICompatible": {"uri": f"{url.rstrip('/')}/", "temperature": 0, "stop": []}}
    }
    return [
        str(garak),
        *("--target_type", "openai.OpenAICompatible", "--target_name", model),
        *("--generator_options", json.dumps(options)),
        *("--spec", spec, "--generations", "1", "--seed", "0"),
        *("--report_prefix", str(report)),
    ]


async def run_garak(*, url: str, key: str, model: str, spec: str, work: Path) -> tuple[Probed, ...]:
    """What every detector of the probes in `spec` (`probes.dan,probes.promptinject`) found.

    `work` is an absolute path.

    Raises:
        PermanentError: garak is not there, or its report holds no result.
        PeerUnavailable: it did not finish; its last words are in the message.
    """
    report = work / "garak"
    words = command(find_garak(), url=url, model=model, spec=spec, report=report)
    process = await asyncio.create_subprocess_exec(
        *words,
        env={**os.environ, KEY_VARIABLE: key},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = said.decode(errors="replace").strip()[-_LAST_WORDS:]
        raise PeerUnavailable(
            f"garak ended with status {process.returncode}: {last}",
            mend="check the names of the probes with `garak --list_probes`",
        )
    return read_report(report.with_name("garak.report.jsonl"))


def read_report(path: Path) -> tuple[Probed, ...]:
    """The results in a report, in its order. Raises PermanentError if there are none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise _no_result(path) from error
    found = tuple(_probed(e) for e in _entries(lines) if e.get("entry_type") == "eval")
    if not found:
        raise _no_result(path)
    return found


def _entries(lines: Sequence[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines if line.strip()]


def _probed(entry: dict[str, Any]) -> Probed:
    detector = str(entry["detector"]).removeprefix("detector.")
    return Probed(
        name=f"garak:{entry['probe']}/{detector}",
        withstood=int(entry["passed"]),
        asked=int(entry["total_evaluated"]),
    )


def _no_result(path: Path) -> PermanentError:
    return PermanentError(
        f"garak's report holds no result ({path.name})",
        mend="use garak 0.17 or newer, and a --garak that selects at least one probe",
    )
