import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from services.serving.engine.port import AdapterRefused
from tests.serving.conftest import make_adapter


@pytest.fixture
def folder(adapter_folders, tmp_path):
    return shutil.copytree(adapter_folders["a"], tmp_path / "adapter")


def edit_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def rename_one(tensors):
    tensors["base_model.model.lm_head.lora_A.weight"] = tensors.pop(next(iter(tensors)))


def shorten_one(tensors):
    key = next(k for k in tensors if "lora_A" in k)
    tensors[key] = tensors[key][:, :-1].contiguous()


def poison_one(tensors):
    tensors[next(iter(tensors))][0, 0] = float("nan")


@pytest.mark.req("V8")
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda f: (f / "adapter_model.bin").write_bytes(b""), "pickle", id="pickle"),
        pytest.param(lambda f: edit_config(f, use_dora=True), "use_dora", id="dora"),
        pytest.param(lambda f: edit_config(f, r=5), "shapes", id="rank differs from weights"),
        pytest.param(lambda f: edit_config(f, r=65), "max_lora_rank 64", id="rank too high"),
        pytest.param(lambda f: edit_config(f, peft_type="IA3"), "IA3", id="other method"),
        pytest.param(lambda f: edit_weights(f, rename_one), "unknown weight", id="unknown key"),
        pytest.param(lambda f: edit_weights(f, shorten_one), "shapes", id="wrong shape"),
        pytest.param(lambda f: edit_weights(f, poison_one), "finite", id="not a number"),
        pytest.param(
            lambda f: (f / "recipe.json").write_text('{"base": "sha256:0"}'), "base", id="base"
        ),
        pytest.param(
            lambda f: (f / "adapter_model.safetensors").write_bytes(b"x" * 40), "read", id="garbage"
        ),
    ],
)
def test_an_adapter_that_would_be_applied_wrongly_is_refused(engine, folder, spoil, says):
    spoil(folder)
    with pytest.raises(AdapterRefused, match=says) as refused:
        engine.load_adapter(folder)
    assert refused.value.mend


@pytest.mark.req("V8")
def test_changed_content_is_another_adapter(engine, folder):
    before = engine.load_adapter(folder).digest
    edit_weights(folder, lambda t: t[next(iter(t))].mul_(2))
    assert engine.load_adapter(folder).digest != before


@pytest.mark.req("V8")
def test_the_least_recently_used_adapter_makes_room(engine, base, tmp_path):
    digests = [
        engine.load_adapter(make_adapter(base, tmp_path / str(i), seed=50 + i, r=2)).digest
        for i in range(5)
    ]
    assert [info.digest for info in engine.adapters()] == digests[1:]
