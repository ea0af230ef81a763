"""A finished run, as its work folder remembers it."""

from __future__ import annotations

from pathlib import Path

from services.training.reports import TrainResult
from shared.models import file_digest

ADAPTER = "adapter"
WEIGHTS = "adapter_model.safetensors"
RESULT_FILE = "result.json"


def read_result(work: Path) -> TrainResult | None:
    """The result, if the run is finished and its weights are still those it made."""
    try:
        result = TrainResult.model_validate_json((work / RESULT_FILE).read_bytes())
        intact = file_digest(work / ADAPTER / WEIGHTS) == result.weights
    except (OSError, ValueError):
        return None
    return result if intact else None


def write_result(work: Path, result: TrainResult) -> None:
    """Remember that the run is finished. Last of all its writes."""
    part = work / (RESULT_FILE + ".part")
    part.write_text(result.model_dump_json(indent=1))
    part.replace(work / RESULT_FILE)
