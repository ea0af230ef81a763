"""G2 finds what a serving backend does otherwise than training did, and names it.

Each fault is put into real files: a checkpoint's chat template, an adapter's weights, the base's
weights, a merge. Our engine serves them, and G2 asks it over HTTP.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.training import Recipe
from services.training.plan import recipe_bytes
from shared.merging import read_source
from shared.merging.arithmetic import task_vectors
from shared.merging.merge import merge
from shared.models import base_digest, tokenizer_digest
from tests.failure_modes.conftest import judging

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("laboratory"),
    pytest.mark.req("G2"),
]
Judge = Callable[..., Any]


def registered_for(base: Path, adapter: Path, folder: Path) -> Path:
    """A copy of the adapter whose record names `base`: no digest gives the fault away."""
    copy = shutil.copytree(adapter, folder / f"{adapter.name}-for-{base.name}")
    recipe = Recipe.model_validate_json((copy / "recipe.json").read_bytes())
    own = {"base": base_digest(base), "tokenizer": tokenizer_digest(base)}
    (copy / "recipe.json").write_bytes(recipe_bytes(recipe.model_copy(update=own)))
    return copy


def changed_weights(folder: Path, change: Callable[[str, Any], Any]) -> None:
    from safetensors.torch import load_file, save_file

    (file,) = folder.glob("*model.safetensors")
    weights = {name: change(name, weight) for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.req("F13")
async def test_a_wrong_chat_template_is_named(
    lab_base: Path, healthy: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(lab_base, tmp_path / "other-template")
    (template,) = [f for f in other.iterdir() if f.suffix == ".jinja"]
    template.write_text("user\n" + template.read_text())
    with judging(other) as judge:
        by_digest = await judge("G2", healthy)
        by_tokens = await judge("G2", registered_for(other, healthy, tmp_path))
    assert "the tokenizers differ" in by_digest.summary
    assert by_tokens.verdict == "failed"
    assert "renders other tokens than in training" in by_tokens.summary


async def test_a_silently_ignored_module_is_named(
    judge: Judge, healthy: Path, tmp_path: Path
) -> None:
    partly = shutil.copytree(healthy, tmp_path / "partly")
    changed_weights(partly, lambda name, w: w * 0 if "down_proj.lora_B" in name else w)
    wholly = shutil.copytree(healthy, tmp_path / "wholly")
    changed_weights(wholly, lambda name, w: w * 0 if "lora_B" in name else w)
    one = await judge("G2", healthy, served=partly)
    all_ = await judge("G2", healthy, served=wholly)
    assert (one.verdict, one.remediation) == ("failed", "repair_registry")
    assert "a module is not applied" in one.summary
    assert all_.verdict == "failed"
    assert "the adapter is not applied" in all_.summary
    assert (await judge("G2", healthy)).verdict == "passed"


@pytest.mark.req("F13")
async def test_a_wrong_base_is_named(lab_base: Path, healthy: Path, tmp_path: Path) -> None:
    other = shutil.copytree(lab_base, tmp_path / "other-base")
    changed_weights(other, lambda name, w: w * 1.2 if "mlp" in name else w)
    with judging(other) as judge:
        by_digest = await judge("G2", healthy)
        by_answers = await judge("G2", registered_for(other, healthy, tmp_path))
    assert "trained on base" in by_digest.summary
    assert by_answers.verdict == "failed"
    assert "is not the base that was trained on" in by_answers.summary


@pytest.mark.req("F15")
async def test_a_lossy_merge_is_named_and_a_faithful_one_passes(
    lab_base: Path, healthy: Path, tmp_path: Path
) -> None:
    faithful = tmp_path / "faithful"
    merge(lab_base, [read_source(healthy)], faithful)
    change = task_vectors(read_source(healthy))
    truncated = shutil.copytree(lab_base, tmp_path / "truncated")
    changed_weights(truncated, lambda name, w: w + rank_one(change[name]) if name in change else w)
    coarse = shutil.copytree(faithful, tmp_path / "coarse")
    changed_weights(coarse, lambda _, w: rounded(w, bits=3))
    verdicts = {}
    for checkpoint in (faithful, truncated, coarse, lab_base):
        with judging(checkpoint, merged=True) as judge:
            verdicts[checkpoint.name] = await judge("G2", healthy)
    assert verdicts["faithful"].verdict == "passed", verdicts["faithful"].summary
    for name in ("truncated", "coarse"):
        assert (verdicts[name].verdict, verdicts[name].remediation) == (
            "failed",
            "repair_registry",
        )
        assert "the merge is lossy" in verdicts[name].summary
    assert "the adapter is not applied" in verdicts["base"].summary


def rank_one(delta: Any) -> Any:
    """The best approximation of rank one, as a merge that cuts the rank makes it."""
    u, s, v = delta.float().svd()
    return s[0] * u[:, :1] @ v[:, :1].T


def rounded(weight: Any, *, bits: int) -> Any:
    """The weight with a mantissa of so many bits, as a merge in low precision leaves it."""
    import torch

    mantissa, exponent = torch.frexp(weight)
    return torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent)


def test_the_command_asks_a_merged_checkpoint(
    lab_base: Path, healthy: Path, tmp_path: Path
) -> None:
    from tests.failure_modes.test_gate_command import sluice

    merge(lab_base, [read_source(healthy)], tmp_path / "merged")
    words = ["--candidate", str(healthy), "--merged", str(tmp_path / "merged")]
    done = sluice(tmp_path / "home", "G2", *words)
    assert done.returncode == 0, done.stderr
    assert "Served equals trained" in done.stdout
    assert sluice(tmp_path / "home", "G5", *words).returncode == 2
