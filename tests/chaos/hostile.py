"""Adapters and trees that mean harm, and what our readers make of them in little memory.

    python -m tests.chaos.hostile READER SEED COUNT

READER is `registry` (the check at registration), `serving` (the check at load) or `store` (the
manifest of a tree). Prints one JSON line: reason → how often it was given; the process may not take
more memory than it has after its imports, and MEMORY_BYTES. What is taken, or refused without
saying why, ends it with an error.
"""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contracts.base import Digest
from shared.artifacts import ArtifactStore
from shared.errors import InvalidInput, SluiceError
from shared.testing.adapters import lora_config, lora_shapes, safetensors_bytes

MEMORY_BYTES = 256 << 20
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
GOOD = safetensors_bytes(lora_shapes())
NUMBERS: tuple[Any, ...] = (-1, 0, 1, 3, 2**31, 2**53, 2**63 - 1, 2**64, 10**300, 0.5, 1e308, None)
ODD: tuple[Any, ...] = (*NUMBERS, True, "4", [], {}, [[]], float("nan"), float("inf"))


def _packed(header: bytes, data: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def _parts() -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", GOOD[:8])
    return json.loads(GOOD[8 : 8 + length]), GOOD[8 + length :]


def _length(rng: random.Random) -> bytes:
    lengths = (2**63, 2**64 - 1, 16 << 20, (16 << 20) + 1, len(GOOD) + 1, 0, 1, 7, 2**40)
    return struct.pack("<Q", rng.choice(lengths)) + GOOD[8:]


def _offsets(rng: random.Random) -> bytes:
    header, data = _parts()
    row = header[rng.choice([name for name in header if name != "__metadata__"])]
    start, stop = row["data_offsets"]
    other = rng.choice([n for n in (*ODD, start + 4, stop - 4, stop + 4) if n not in (start, stop)])
    row["data_offsets"] = rng.choice([[other, stop], [start, other], [stop, start], [start], other])
    return _packed(json.dumps(header).encode(), data)


def _overlap(rng: random.Random) -> bytes:
    header, data = _parts()
    one, two = rng.sample([name for name in header if name != "__metadata__"], 2)
    header[one]["data_offsets"] = header[two]["data_offsets"]
    return _packed(json.dumps(header).encode(), data)


def _shape(rng: random.Random) -> bytes:
    header, data = _parts()
    row = header[rng.choice([name for name in header if name != "__metadata__"])]
    kind = rng.randrange(4)
    if kind == 0:
        row["shape"] = [999_999_999] * rng.choice([3, 1000, 200_000])
    elif kind == 1:
        row["shape"] = [rng.choice([n for n in ODD if n not in (4, "4")]), rng.choice(ODD)]
    elif kind == 2:
        row["shape"] = rng.choice(ODD)
    else:
        row["dtype"] = rng.choice(["F64X", "I64", "F4", 7, None, "F32" * 1000])
    return _packed(json.dumps(header).encode(), data)


def _names(rng: random.Random) -> bytes:
    header, data = _parts()
    name = rng.choice([name for name in header if name != "__metadata__"])
    header[rng.choice(["../" + name, name + "\0", "x" * (1 << 20), "lm_head.weight"])] = header.pop(
        name
    )
    return _packed(json.dumps(header).encode(), data)


def _nonsense(rng: random.Random) -> bytes:
    return rng.choice(
        [
            lambda: rng.randbytes(rng.randint(0, 4096)),
            lambda: b"\x80\x04\x95" + rng.randbytes(100),
            lambda: _packed(b"[" * (1 << 20), b""),
            lambda: _packed(b'{"a":' * (1 << 18), b""),
            lambda: _packed(b"{}", b""),
            lambda: _packed(json.dumps({"a": [1e400]}).encode(), b""),
            lambda: _packed(b'{"x":' + b"9" * 100_000 + b"}", b""),
            lambda: GOOD[: rng.randrange(len(GOOD))],
            lambda: GOOD + rng.randbytes(rng.randint(1, 64)),
        ]
    )()


SPOILERS: tuple[Callable[[random.Random], bytes], ...] = (
    _length,
    _offsets,
    _overlap,
    _shape,
    _names,
    _nonsense,
)


def _config(rng: random.Random) -> bytes:
    """Nothing our arithmetic is right for, or nothing that can be read."""
    return rng.choice(
        [
            lambda: json.dumps(lora_config(r=rng.choice([0, -1, 2**31, 10**200, 300]))).encode(),
            lambda: json.dumps(
                {**lora_config(), "r": rng.choice([None, True, "4x", [4]])}
            ).encode(),
            lambda: json.dumps(
                {**lora_config(), "lora_alpha": rng.choice([float("inf"), float("nan"), -1, 0])}
            ).encode(),
            lambda: b'{"peft_type": "LORA", "r": 4, "lora_alpha": 1e999}',
            lambda: b'{"peft_type": "LORA", "r": 4, "lora_alpha": ' + b"9" * 4000 + b"}",
            lambda: json.dumps(lora_config(use_dora=True)).encode(),
            lambda: json.dumps(lora_config(rank_pattern={"q_proj": 10**9})).encode(),
            lambda: json.dumps({**lora_config(), "modules_to_save": ["x"] * 100_000}).encode(),
            lambda: b"[" * 500_000,
            lambda: b'{"r":' * 100_000 + b"1" + b"}" * 100_000,
            lambda: b" " * (2 << 20),
            lambda: rng.randbytes(rng.randint(0, 2000)),
        ]
    )()


def spoil(folder: Path, rng: random.Random) -> None:
    """One thing wrong with the adapter in `folder`."""
    kind = rng.randrange(8)
    if kind == 0:
        (folder / CONFIG).write_bytes(_config(rng))
    elif kind == 1:
        name = rng.choice(["adapter_model.bin", "weights.pkl", "x.pt"])
        (folder / name).write_bytes(b"\x80\x04.")
    elif kind == 2:
        with (folder / WEIGHTS).open("r+b") as weights:
            weights.truncate(rng.choice([1 << 33, 1 << 40]))  # sparse: no disk, much to read
    else:
        (folder / WEIGHTS).write_bytes(rng.choice(SPOILERS)(rng))


def _manifest(rng: random.Random) -> bytes:
    digest = "sha256:" + "0" * 64
    escape = ["../x", "/etc/passwd", "a/../../x", "a//b", "./a", "a\\..\\b", "", ".", "a/", "\0"]
    return rng.choice(
        [
            lambda: json.dumps({"files": {rng.choice(escape): digest}}).encode(),
            lambda: json.dumps(
                {"files": {"a": rng.choice([7, None, "sha256:0", "../x"])}}
            ).encode(),
            lambda: json.dumps({"files": {"a": digest, "a/b": digest}}).encode(),
            lambda: json.dumps({"files": {f"f{n}": digest for n in range(20_000)}}).encode(),
            lambda: json.dumps({"files": rng.choice([odd for odd in ODD if odd != {}])}).encode(),
            lambda: b"[" * 500_000,
            lambda: b'{"files":' * 100_000,
            lambda: b" " * (9 << 20),
            lambda: rng.randbytes(rng.randint(1, 2000)),
        ]
    )()


def _readers() -> dict[str, Callable[[Path], Callable[[random.Random], object]]]:
    """Reader → given a scratch folder, something that reads one hostile thing after another."""

    def adapters(read: Callable[[Path], object]) -> Callable[[Path], Callable[..., object]]:
        def prepared(scratch: Path) -> Callable[[random.Random], object]:
            def attempt(rng: random.Random) -> object:
                folder = scratch / "adapter"
                for path in folder.glob("*"):
                    path.unlink()
                folder.mkdir(exist_ok=True)
                (folder / CONFIG).write_text(json.dumps(lora_config()))
                (folder / WEIGHTS).write_bytes(GOOD)
                spoil(folder, rng)
                return read(folder)

            return attempt

        return prepared

    def registry() -> Callable[[Path], object]:
        from shared.bundles.adapter import inspect_adapter

        return inspect_adapter

    def serving() -> Callable[[Path], object]:
        import torch

        from services.serving.engine.adapters import read_adapter
        from services.serving.engine.checkpoint import LlamaShape

        shape = LlamaShape(
            hidden=16, layers=1, heads=4, kv_heads=4, head_dim=4, intermediate=32, vocab=64,
            context=64, rope_theta=1e4, rms_eps=1e-5, tied=True, eos=(0,),
        )  # fmt: skip
        digest: Digest = "sha256:" + "0" * 64
        return lambda folder: read_adapter(
            folder, shape, base=digest, max_rank=64, dtype=torch.float32
        )

    def store(scratch: Path) -> Callable[[random.Random], object]:
        artifacts = ArtifactStore((scratch / "store").as_uri())
        return lambda rng: artifacts.fetch_tree(artifacts.put(_manifest(rng)), scratch / "fetched")

    chosen = sys.argv[1]
    return {
        "store": store,
        "registry": adapters(registry()) if chosen == "registry" else store,
        "serving": adapters(serving()) if chosen == "serving" else store,
    }


def limit_memory() -> None:
    """What is mapped now, and MEMORY_BYTES."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def mended(refused: SluiceError) -> bool:
    """Whether the refusal says what would help."""
    problems = refused.problems if isinstance(refused, InvalidInput) else ()
    return bool(refused.mend) or (bool(problems) and all(problem.mend for problem in problems))


def main() -> None:
    seed, count = int(sys.argv[2]), int(sys.argv[3])
    rng, reasons = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as scratch:
        attempt = _readers()[sys.argv[1]](Path(scratch))
        limit_memory()
        for number in range(count):
            try:
                attempt(rng)
            except SluiceError as refused:
                small = len(str(refused)) < 100_000
                if not small or (sys.argv[1] != "store" and not mended(refused)):
                    raise
                reasons[type(refused).__name__] += 1
                continue
            raise AssertionError(f"attempt {number} of seed {seed} was taken")
        assert sorted(p.name for p in Path(scratch).iterdir() if p.name != "store") in (
            ["adapter"],
            ["fetched"],
            [],
        )
    print(json.dumps(reasons))


if __name__ == "__main__":
    main()
