"""What an adapter folder may hold: a plain LoRA, in safetensors, of the shape it declares.

Checked at registration and again at load (R2). Only the header of the weights is read, and no
more of it than a bound; nothing is unpickled or imported.
"""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.base import Problem
from shared.bundles.layout import ALLOWED_SUFFIXES, CONFIG, TREE_MARKER, WEIGHTS
from shared.errors import InvalidInput

MAXIMUM_CONFIG_BYTES = 1 << 20
MAXIMUM_HEADER_BYTES = 16 << 20
MAXIMUM_RANK = 256
MAXIMUM_SIDE = 1 << 32
MAXIMUM_PROBLEMS = 20
"""A refusal is a fact of the run: what it says stays small whatever it speaks of."""

_TENSOR = re.compile(r"base_model\.model\.(?P<module>[\w.]+)\.lora_(?P<side>[AB])\.weight")
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


class AdapterConfig(BaseModel):
    """The fields of PEFT's `adapter_config.json` that change what is computed.

    Our kernels compute Y = X·W₀ᵀ + (α/r)·(X·Aᵀ)·Bᵀ and nothing else, so every PEFT option that
    means another formula must be off. Fields not named here are PEFT's bookkeeping.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    peft_type: Literal["LORA"]
    r: int = Field(ge=1, le=MAXIMUM_RANK)
    lora_alpha: float = Field(gt=0, allow_inf_nan=False)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] = Field(min_length=1)
    bias: Literal["none"] = "none"
    use_dora: Literal[False] = False
    use_rslora: Literal[False] = False
    lora_bias: Literal[False] = False
    fan_in_fan_out: Literal[False] = False
    rank_pattern: dict[str, int] | None = Field(default=None, max_length=0)
    alpha_pattern: dict[str, float] | None = Field(default=None, max_length=0)
    modules_to_save: tuple[str, ...] | None = Field(default=None, max_length=0)
    trainable_token_indices: tuple[int, ...] | None = Field(default=None, max_length=0)
    auto_mapping: None = None
    """PEFT would import the class it names."""
    init_lora_weights: bool | Literal["gaussian"] = True
    """Other initialisations (PiSSA, CorDA) change the frozen base as well."""


def inspect_adapter(folder: Path, *, maximum_rank: int = MAXIMUM_RANK) -> AdapterConfig:
    """The configuration of the adapter in `folder`, which is fit to load.

    Raises:
        InvalidInput: every reason why it is not, with its mend.

    """
    problems = [
        Problem(
            where=path.relative_to(folder).as_posix(),
            problem="is not a file an adapter may hold",
            mend="save the adapter with safe serialization; remove pickles, code and links",
        )
        for path in sorted(folder.rglob("*"))
        if not _allowed(path)
    ]
    if problems:
        raise InvalidInput(problems[:MAXIMUM_PROBLEMS])
    config = _read_config(folder / CONFIG, maximum_rank)
    found = _tensor_problems(_read_header(folder / WEIGHTS), config)
    if found:
        raise InvalidInput(found[:MAXIMUM_PROBLEMS])
    return config


def _allowed(path: Path) -> bool:
    if path.is_symlink():
        return False
    return path.is_dir() or (
        path.is_file() and (path.suffix in ALLOWED_SUFFIXES or path.name == TREE_MARKER)
    )


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


def _refuse(where: str, problem: str, mend: str) -> InvalidInput:
    return InvalidInput([Problem(where=where, problem=problem, mend=mend)])


def _bounded(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as source:
            content = source.read(limit + 1)
    except OSError as error:
        raise _refuse(path.name, f"cannot be read: {error.strerror}", "train again") from error
    if len(content) > limit:
        raise _refuse(path.name, f"is larger than {limit} bytes", "save it with PEFT")
    return content


def _read_config(path: Path, maximum_rank: int) -> AdapterConfig:
    content = _bounded(path, MAXIMUM_CONFIG_BYTES)
    mend = "train a plain LoRA: no DoRA, rsLoRA, bias, saved modules or per-module ranks"
    try:
        config = AdapterConfig.model_validate_json(content)
    except ValidationError as error:
        raise InvalidInput(
            [
                Problem(
                    where=".".join((path.name, *(str(part) for part in row["loc"]))),
                    problem=row["msg"],
                    mend=mend,
                )
                for row in error.errors(include_input=False)[:MAXIMUM_PROBLEMS]
            ]
        ) from error
    if config.r > maximum_rank:
        raise _refuse(
            f"{path.name}.r",
            f"rank {config.r} is above this platform's {maximum_rank}",
            f"train with lora.r <= {maximum_rank}",
        )
    return config


def _read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensor name → (dtype, shape), once the offsets are known to tile the file exactly."""
    mend = "save the adapter again; the file is damaged or no safetensors file"
    try:
        size = path.stat().st_size
        with path.open("rb") as source:
            (length,) = struct.unpack("<Q", source.read(8))
            if length > min(MAXIMUM_HEADER_BYTES, size - 8):
                raise ValueError(f"declares a header of {length} bytes")
            header = json.loads(source.read(length).decode("utf-8"))
        header.pop("__metadata__", None)
        return _tile(header, size - 8 - length)
    except (OSError, struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = _short(str(error))
        raise _refuse(path.name, f"is not a safetensors file: {reason}", mend) from error
    except RecursionError as error:
        raise _refuse(path.name, "nests its header too deep", mend) from error


def _tile(header: dict[str, Any], data_bytes: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    end = 0
    tensors = {}
    for name, row in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
        start, stop = row["data_offsets"]
        if len(row["shape"]) != 2:  # of a matrix; more would only be work to multiply
            raise ValueError(f"{_short(name)} has {len(row['shape'])} sides")
        shape = tuple(row["shape"])
        item = _ITEM_BYTES.get(row["dtype"])
        if item is None or not all(type(n) is int and 0 < n < MAXIMUM_SIDE for n in shape):
            raise ValueError(f"{_short(name)} has dtype {row['dtype']} and shape {shape}")
        if start != end or stop - start != item * math.prod(shape):
            raise ValueError(f"{_short(name)} does not lie where its shape says")
        tensors[name], end = (row["dtype"], shape), stop
    if end != data_bytes or not tensors:
        raise ValueError(f"holds {data_bytes} bytes of data and describes {end}")
    return tensors


def _tensor_problems(
    tensors: dict[str, tuple[str, tuple[int, ...]]], config: AdapterConfig
) -> list[Problem]:
    sides: dict[str, set[str]] = {}
    problems = []

    def complain(where: str, problem: str) -> None:
        problems.append(
            Problem(where=_short(where), problem=problem, mend="train the adapter again with PEFT")
        )

    for name, (_, shape) in tensors.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            complain(name, "is no LoRA matrix")
            continue
        module, side = match["module"], match["side"]
        sides.setdefault(module, set()).add(side)
        if not any(module == t or module.endswith("." + t) for t in config.target_modules):
            complain(name, "is not in a module of target_modules")
        rank_axis = 0 if side == "A" else 1
        if len(shape) != 2 or shape[rank_axis] != config.r:
            complain(name, f"has shape {shape}, rank {config.r} is declared")
    for module, found in sides.items():
        if found != {"A", "B"}:
            complain(module, "has one of A and B only")
    return problems
