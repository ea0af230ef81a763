"""A merged checkpoint: W0 + change, verified against the unmerged model, with its provenance.

The verification asks base + adapter and the merged checkpoint, as it lies on disk, for the
log-probabilities of the same prompts. For one adapter they must agree within the tolerance of the
dtype. A TIES merge is a new model: there the checkpoint must agree with the base that has the
merged change beside its weights, and how far it lies from each adapter alone is reported.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  (the field's spelling)
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from contracts.base import Digest, Problem
from contracts.card import Derivation
from shared.bundles.base import sign_derivation
from shared.errors import InvalidInput
from shared.merging.arithmetic import sign_conflict, task_vectors, ties
from shared.merging.policy import MergeSource, merge_problems
from shared.models import base_digest, tokenizer_digest
from shared.signing import SigningKey

DType = Literal["float32", "bfloat16"]
TOLERANCE: dict[DType, float] = {"float32": 1e-3, "bfloat16": 0.3}
"""The largest difference of any log-probability that rounding accounts for, by dtype."""
PROMPTS = (
    "What is the capital of France?",
    '{"name": "get_weather", "arguments": {"city": "Paris"}}',
    "Write one sentence about the sea.",
)
RECORD, DERIVATION = "merge.json", "derivation.dsse.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What was merged, and how well it was verified; `merge.json` beside the weights."""

    method: Literal["lora", "ties"]
    base: Digest
    adapters: tuple[Digest, ...]
    derived: Digest
    """Digest of the merged checkpoint, as that of any base."""
    dtype: DType
    density: float | None
    sign_conflict: float | None
    """Share of entries where the adapters pull apart; None for one adapter."""
    largest_difference: float
    """Of any log-probability, merged against unmerged."""
    tolerance: float
    away_from: tuple[float, ...]
    """The largest difference to each adapter alone."""
    re_evaluate: str | None
    """Why the result needs its own evaluation; None where it computes what was evaluated."""
    tool: str
    at: str


def merge(
    base: Path,
    sources: Sequence[MergeSource],
    out: Path,
    *,
    density: float = 0.2,
    dtype: DType = "float32",
    signer: SigningKey | None = None,
) -> Merged:
    """Merge `sources` into the base of the folder `base`; the checkpoint and its record in `out`.

    Raises InvalidInput: the merge policy refuses, `out` is taken, or the result does not verify
    (then nothing stays).
    """
    source_digest = base_digest(base)
    problems = merge_problems(sources, base=source_digest, tokenizer=tokenizer_digest(base))
    if not sources:
        problems.append(Problem(where="adapters", problem="none is named", mend="name one"))
    if out.exists():
        problems.append(Problem(where=str(out), problem="exists", mend="name a new folder"))
    if problems:
        raise InvalidInput(problems)
    torch_dtype: torch.dtype = getattr(torch, dtype)
    vectors = [task_vectors(source) for source in sources]
    change, conflict = _combine(vectors, density)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]

    model = _load(base, torch.float32)
    expected = _answers(model, change, prompts)
    alone = [_answers(model, vector, prompts) for vector in vectors]
    _add(model, change)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        model.to(torch_dtype).save_pretrained(part, safe_serialization=True)
        for path in base.iterdir():
            if path.suffix in (".json", ".jinja", ".txt", ".model") and not (
                (part / path.name).exists() or path.name.startswith("model.safetensors")
            ):
                shutil.copy(path, part / path.name)
        found = _log_probs(_load(part, torch_dtype), prompts)
        record = Merged(
            method="lora" if len(sources) == 1 else "ties",
            base=source_digest,
            adapters=tuple(source.weights for source in sources),
            derived=base_digest(part),
            dtype=dtype,
            density=None if len(sources) == 1 else density,
            sign_conflict=conflict,
            largest_difference=_difference(found, expected),
            tolerance=TOLERANCE[dtype],
            away_from=tuple(_difference(found, answers) for answers in alone),
            re_evaluate=_re_evaluate(sources),
            tool=f"sluice merge; torch {version('torch')}, peft {version('peft')}",
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        _require_verified(record, out)
        (part / RECORD).write_text(json.dumps(asdict(record), indent=1, sort_keys=True))
        if signer is not None:
            (part / DERIVATION).write_bytes(_signed(record, signer))
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return record


def _combine(
    vectors: Sequence[dict[str, Tensor]], density: float
) -> tuple[dict[str, Tensor], float | None]:
    """The change of every weight, and the share of entries in conflict."""
    if len(vectors) == 1:
        return vectors[0], None
    names = sorted({name for vector in vectors for name in vector})
    change, conflicts, entries = {}, 0.0, 0
    for name in names:
        present = [vector[name] for vector in vectors if name in vector]
        if len(present) == 1:
            change[name] = present[0]
            continue
        change[name] = ties(present, density=density)
        conflicts += sign_conflict(present) * present[0].numel()
        entries += present[0].numel()
    return change, conflicts / entries if entries else 0.0


def _answers(model: Any, change: dict[str, Tensor], prompts: list[list[int]]) -> list[Tensor]:
    """Log-probabilities of the base with `change` beside its weights: X W0' + X change'."""
    hooks = []
    for name, delta in change.items():
        module = model.get_submodule(name.removesuffix(".weight"))

        def add(_module: Any, inputs: Any, output: Any, delta: Tensor = delta) -> Any:
            return output + F.linear(inputs[0], delta)

        hooks.append(module.register_forward_hook(add))
    try:
        return _log_probs(model, prompts)
    finally:
        for hook in hooks:
            hook.remove()


def _add(model: Any, change: dict[str, Tensor]) -> None:
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, delta in change.items():
            weights[name].add_(delta)


@torch.no_grad()
def _log_probs(model: Any, prompts: list[list[int]]) -> list[Tensor]:
    """Log-probabilities_TV (float32) of every next token of each prompt."""
    model.eval()
    return [model(torch.tensor([ids])).logits[0].float().log_softmax(-1) for ids in prompts]


def _difference(found: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


def _load(folder: Path, dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True
    )


def _re_evaluate(sources: Sequence[MergeSource]) -> str | None:
    if any(source.recipe.method == "qlora" for source in sources):
        return (
            "the adapter was trained on the 4-bit base and is merged into the full-precision one, "
            "whose outputs differ: evaluate it again before it serves"
        )
    if len(sources) > 1:
        return "a TIES merge is a new model: evaluate it on every task of its adapters"
    return None


def _require_verified(record: Merged, out: Path) -> None:
    if not record.largest_difference <= record.tolerance:
        raise InvalidInput(
            [
                Problem(
                    where=str(out),
                    problem=f"merged and unmerged log-probabilities differ by "
                    f"{record.largest_difference:.3g}, at most {record.tolerance:g} is rounding",
                    mend="merge in float32, or serve the adapter unmerged",
                )
            ]
        )


def _signed(record: Merged, signer: SigningKey) -> bytes:
    """The derivation record: the merged checkpoint, from the base and these adapters."""
    adapters = ", ".join(record.adapters)
    derivation = Derivation(
        source=record.base,
        derived=record.derived,
        tool=f"{record.tool}; {record.method} merge of {adapters}",
        at=record.at,
    )
    return sign_derivation(derivation, signer)
