"""LoRA adapters in PEFT's folder format, checked before use and kept by content digest.

Only safetensors is read. An adapter that this engine would apply differently from PEFT is refused,
never approximated.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from contracts.base import Digest
from kernels.lora import Block, LowRank, expand_layout, quantized
from services.serving.engine.checkpoint import LlamaShape
from services.serving.engine.model import FUSED
from services.serving.engine.port import AdapterInfo, AdapterRefused

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_KEY = re.compile(
    r"base_model\.model\.model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_(A|B)\.weight"
)
MAXIMUM_DOCUMENT_BYTES = 1 << 20
MAXIMUM_HEADER_BYTES = 16 << 20
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "use_dora": (False,),
    "lora_bias": (False,),
    "fan_in_fan_out": (False,),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "trainable_token_indices": (None, [], {}),
    "use_qalora": (False,),
}
"""Options of PEFT that change the arithmetic, with the values that do not."""


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter ready for the kernel."""

    info: AdapterInfo
    layers: tuple[dict[str, LowRank], ...]
    """Layer → fused linear → weights."""


def content_digest(folder: Path) -> Digest:
    """sha256 over the digests of the configuration and the weights."""
    return _digest((folder / CONFIG).read_bytes(), (folder / WEIGHTS).read_bytes())


def _digest(config: bytes, weights: bytes) -> Digest:
    digests = "\n".join(hashlib.sha256(content).hexdigest() for content in (config, weights))
    return "sha256:" + hashlib.sha256(digests.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Contents:
    """What a folder held when it was read, once: the digest names what was checked."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    digest: Digest


def read_folder(
    folder: Path, base: Digest, *, max_rank: int, limit: int, applied: Collection[str] = ()
) -> Contents:
    """Read and check an adapter's files; the weights may have `limit` bytes.

    `applied` are options of the configuration that need not be neutral. Raises AdapterRefused.
    """
    refuse_pickles(folder)
    try:
        said = _bounded(folder / CONFIG)
    except (OSError, ValueError) as error:
        raise _unusable(error) from error
    config = _config(said, folder, base, applied)
    _require_rank(config, max_rank)
    try:
        if (folder / WEIGHTS).stat().st_size > limit:
            raise ValueError(f"is larger than the {limit} bytes an adapter of this base needs")
        held = (folder / WEIGHTS).read_bytes()
        tensors = load_safetensors(held)
    except (OSError, ValueError, SafetensorError, KeyError) as error:
        raise AdapterRefused(
            f"{WEIGHTS} cannot be read: {str(error)[:500]}", mend="save the adapter as safetensors"
        ) from error
    return Contents(config, tensors, _digest(said, held))


def read_adapter(
    folder: Path, shape: LlamaShape, *, base: Digest, max_rank: int, dtype: torch.dtype
) -> LoadedAdapter:
    """Read and check an adapter folder.

    Raises:
        AdapterRefused: a pickle, a missing file, an option or weight this engine does not apply, a
            wrong shape, another base, or a rank above `max_rank`.

    """
    linears = [_dimensions(module, shape) for names in FUSED.values() for module in names]
    limit = most_bytes(linears * shape.layers, max_rank)
    held = read_folder(folder, base, max_rank=max_rank, limit=limit)
    config = held.config
    pairs = _pairs(held.tensors, shape, int(config["r"]))
    alpha, layers = float(config["lora_alpha"]), []
    for layer in range(shape.layers):
        fused = {
            name: low_rank
            for name in FUSED
            if (low_rank := _fuse(name, layer, pairs, shape, alpha, config, dtype)) is not None
        }
        layers.append(fused)
    return LoadedAdapter(
        AdapterInfo(
            digest=held.digest,
            rank=int(config["r"]),
            bytes=sum(piece.nbytes for piece in pieces(tuple(layers))),
            target_modules=tuple(sorted({module for _, module in pairs})),
        ),
        tuple(layers),
    )


def in_eight_bits(adapter: LoadedAdapter) -> LoadedAdapter:
    """The adapter with int8 weights (`kernels.lora.quantized`)."""
    layers = tuple(
        {name: quantized(low_rank) for name, low_rank in layer.items()} for layer in adapter.layers
    )
    held = sum(piece.nbytes for piece in pieces(layers))
    return LoadedAdapter(replace(adapter.info, bytes=held), layers)


def refuse_pickles(folder: Path) -> None:
    if not folder.is_dir():
        raise AdapterRefused(f"{folder} is no folder", mend="give the folder PEFT saved")
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLES)
    if pickles:
        raise AdapterRefused(
            f"pickled weights are never loaded: {', '.join(pickles)}",
            mend="save the adapter as safetensors (PEFT's default) and remove the pickles",
        )


def _config(said: bytes, folder: Path, base: Digest, applied: Collection[str]) -> dict[str, Any]:
    try:
        config = _document(said)
        rank, alpha = config["r"], config["lora_alpha"]
        if not (type(rank) is int and rank > 0 and type(alpha) in (int, float)):
            raise ValueError("r and lora_alpha must be positive numbers")
        if not 0 < float(alpha) < math.inf:
            raise ValueError("lora_alpha must be positive and finite")
    except (OSError, ValueError, KeyError, OverflowError) as error:
        raise _unusable(error) from error
    if config.get("peft_type") != "LORA":
        raise AdapterRefused(
            f"peft_type {config.get('peft_type')!r:.200} is not LORA", mend="train a LoRA adapter"
        )
    for option, neutral in _NEUTRAL.items():
        if option in config and config[option] not in neutral and option not in applied:
            raise AdapterRefused(
                f"{CONFIG}: {option}={config[option]!r:.200} is not applied by this engine",
                mend=f"train with {option}={neutral[0]!r}",
            )
    recipe = folder / "recipe.json"
    if recipe.exists():
        try:
            trained_on = _document(_bounded(recipe)).get("base")
        except (OSError, ValueError) as error:
            raise AdapterRefused(
                f"recipe.json cannot be used: {error}", mend="keep the recipe as training wrote it"
            ) from error
        if trained_on not in (None, base):
            raise AdapterRefused(
                f"trained on base {trained_on!s:.200}, served base is {base}",
                mend="serve the base it was trained on, or retrain on this one",
            )
    return config


def _unusable(error: Exception) -> AdapterRefused:
    return AdapterRefused(f"{CONFIG} cannot be used: {error}", mend="save the adapter with PEFT")


def _bounded(path: Path) -> bytes:
    """A document's content. Raises OSError, ValueError."""
    with path.open("rb") as source:
        content = source.read(MAXIMUM_DOCUMENT_BYTES + 1)
    if len(content) > MAXIMUM_DOCUMENT_BYTES:
        raise ValueError(f"is larger than {MAXIMUM_DOCUMENT_BYTES} bytes")
    return content


def _document(content: bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError."""
    try:
        found = json.loads(content)
    except RecursionError as error:
        raise ValueError("is nested too deep") from error
    if not isinstance(found, dict):
        raise ValueError("is no JSON object")
    return found


def most_bytes(linears: Iterable[tuple[int, int]], max_rank: int) -> int:
    """The largest file of an adapter on `linears` of (d, k): all of `max_rank`, in float64."""
    return MAXIMUM_HEADER_BYTES + sum(map(sum, linears)) * max_rank * 8


def _require_rank(config: dict[str, Any], max_rank: int) -> None:
    """Raises AdapterRefused above `max_rank` (V4), before the weights are read."""
    rank: int = config["r"]
    if rank > max_rank:
        raise AdapterRefused(
            f"rank {rank} is above max_lora_rank {max_rank}",
            mend=f"train with r <= {max_rank}, or raise SLUICE_SERVING_MAX_LORA_RANK",
        )


Pairs = dict[tuple[int, str], tuple[Tensor, Tensor]]


def _dimensions(module: str, s: LlamaShape) -> tuple[int, int]:
    heads, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    return {
        "q_proj": (heads, s.hidden),
        "k_proj": (kv, s.hidden),
        "v_proj": (kv, s.hidden),
        "o_proj": (s.hidden, heads),
        "gate_proj": (s.intermediate, s.hidden),
        "up_proj": (s.intermediate, s.hidden),
        "down_proj": (s.hidden, s.intermediate),
    }[module]


def _finite(tensor: Tensor) -> bool:
    """A NaN is both extremes. Six times as fast as `isfinite` of every value."""
    return not tensor.numel() or all(math.isfinite(float(end)) for end in torch.aminmax(tensor))


def _pairs(tensors: dict[str, Tensor], shape: LlamaShape, rank: int) -> Pairs:
    known = {module for modules in FUSED.values() for module in modules}
    found: dict[tuple[int, str], dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if not match or match[2] not in known or int(match[1]) >= shape.layers:
            raise AdapterRefused(
                f"unknown weight {key[:200]!r}",
                mend="target only the base's linear layers with LoRA",
            )
        if not tensor.is_floating_point() or not _finite(tensor):
            raise AdapterRefused(f"{key} holds values that are not finite", mend="retrain")
        found.setdefault((int(match[1]), match[2]), {})[match[3]] = tensor
    pairs: Pairs = {}
    for (layer, module), halves in found.items():
        d, k = _dimensions(module, shape)
        shapes = {half: tuple(t.shape) for half, t in halves.items()}
        if shapes != {"A": (rank, k), "B": (d, rank)}:
            raise AdapterRefused(
                f"layer {layer} {module}: shapes {shapes}, the base needs "
                f"A {(rank, k)} and B {(d, rank)}",
                mend="the adapter was made for another base or its files do not belong together",
            )
        pairs[layer, module] = (halves["A"], halves["B"])
    if not pairs:
        raise AdapterRefused("the adapter holds no weights", mend="retrain")
    return pairs


def _fuse(
    name: str,
    layer: int,
    pairs: Pairs,
    shape: LlamaShape,
    alpha: float,
    config: dict[str, Any],
    dtype: torch.dtype,
) -> LowRank | None:
    column, row = 0, 0
    stacked: list[Tensor] = []
    blocks: list[Block] = []
    for module in FUSED[name]:
        if (layer, module) in pairs:
            a, b = pairs[layer, module]
            stacked.append(a.to(dtype))
            blocks.append(Block(column, row, expand_layout(b.to(dtype))))
            row += a.shape[0]
        column += _dimensions(module, shape)[0]
    if not blocks:
        return None
    rank = math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
    return LowRank(torch.cat(stacked).contiguous(), tuple(blocks), alpha, rank)


Node = TypeVar("Node")


def pieces(node: Any) -> Iterator[Tensor]:
    """Every weight in `node` (layers, as `LoadedAdapter` has them), as it lies in memory."""
    match node:
        case Tensor():
            yield _lying(node)
        case dict():
            for part in node.values():
                yield from pieces(part)
        case tuple():
            for part in node:
                yield from pieces(part)
        case _ if is_dataclass(node):
            for each in fields(node):
                yield from pieces(getattr(node, each.name))


def rebuilt(node: Node, fresh: Iterator[Tensor]) -> Node:
    """`node` with its weights taken from `fresh`, which are in the order of `pieces`."""
    made: Any = node
    match node:
        case Tensor():
            made = next(fresh)
            made = made if node.is_contiguous() else made.t()
        case dict():
            made = {key: rebuilt(part, fresh) for key, part in node.items()}
        case tuple():
            made = tuple(rebuilt(part, fresh) for part in node)
        case _ if is_dataclass(node):
            parts = {e.name: rebuilt(getattr(node, e.name), fresh) for e in fields(node)}
            made = replace(node, **parts)  # type: ignore[type-var]
    kept: Node = made
    return kept


def _lying(tensor: Tensor) -> Tensor:
    """The tensor, or its transpose: whichever is contiguous (`expand_layout`)."""
    return tensor if tensor.is_contiguous() else tensor.t()
