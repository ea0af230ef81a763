"""Which folders `sluice gate` means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.cli import gating
from shared.errors import InvalidInput
from shared.models import base_digest


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("Tiny-Base", "other"):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        for file in ("config.json", "model.safetensors", "tokenizer.json"):
            (folder / file).write_text(json.dumps({"name": name}))
    return tmp_path


def adapter(folder: Path, **recipe: str) -> Path:
    folder.mkdir()
    config = {"base_model_name_or_path": "other"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    if recipe:
        (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder


def test_a_base_is_a_folder_a_name_a_label_or_a_digest(home: Path) -> None:
    tiny = home / "models" / "Tiny-Base"
    own = adapter(home / "a", base=base_digest(tiny))
    for reference in (str(tiny), "Tiny-Base", "tiny-base", base_digest(tiny), None):
        assert gating.checkpoint_folder(reference, own, home) == tiny.resolve()
    peft = adapter(home / "b")
    assert gating.checkpoint_folder(None, peft, home) == (home / "models" / "other").resolve()


@pytest.mark.parametrize("reference", ["sha256:" + "0" * 64, "nowhere"])
def test_a_base_that_is_not_there_is_named(home: Path, reference: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        gating.checkpoint_folder(reference, adapter(home / "a"), home)
    assert refused.value.problems[0].mend


def test_a_candidate_is_an_adapters_folder_or_a_name(home: Path) -> None:
    own = adapter(home / "a")
    assert gating.adapter_folder(str(own)) == own.resolve()
    assert gating.adapter_folder("tool-calls") is None
    with pytest.raises(InvalidInput, match="holds no adapter_config"):
        gating.adapter_folder(str(home))
