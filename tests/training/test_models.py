"""Digests of bases and tokenizers, and where a base is found."""

from __future__ import annotations

import os
import shutil

import pytest

from contracts.job import BaseModelRef
from shared.errors import InvalidInput
from shared.models import (
    base_digest,
    digest_cache,
    file_digest,
    resolve_base,
    tokenizer_digest,
)


@pytest.fixture
def copy(base, tmp_path):
    return shutil.copytree(base, tmp_path / "models" / "Tiny")


@pytest.mark.req("G2")
@pytest.mark.parametrize(
    ("name", "of_base", "of_tokenizer"),
    [
        ("model.safetensors", True, False),
        ("config.json", True, False),
        ("tokenizer.json", False, True),
        ("chat_template.jinja", False, True),
        ("generation_config.json", False, False),
    ],
)
def test_one_changed_byte_changes_the_digest_it_belongs_to(copy, name, of_base, of_tokenizer):
    before = base_digest(copy), tokenizer_digest(copy)
    content = bytearray((copy / name).read_bytes())
    content[-1] ^= 1
    (copy / name).write_bytes(content)
    assert (base_digest(copy) != before[0]) is of_base
    assert (tokenizer_digest(copy) != before[1]) is of_tokenizer


def test_a_copy_elsewhere_has_the_same_digests(base, copy):
    assert base_digest(copy) == base_digest(base)
    assert tokenizer_digest(copy) == tokenizer_digest(base)


def test_the_cache_is_used_until_the_file_changes(tmp_path):
    cache, path = digest_cache(tmp_path), tmp_path / "weights"
    path.write_bytes(b"one")
    first = file_digest(path, cache=cache)
    cache.write_text(cache.read_text().replace(first, "sha256:" + "f" * 64))
    assert file_digest(path, cache=cache) == "sha256:" + "f" * 64
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert file_digest(path, cache=cache) == file_digest(path)


def test_a_cache_that_cannot_be_read_is_an_empty_one(tmp_path):
    cache, path = digest_cache(tmp_path), tmp_path / "weights"
    path.write_bytes(b"one")
    cache.parent.mkdir(parents=True)
    cache.write_text("{")
    assert file_digest(path, cache=cache) == file_digest(path)


def test_a_base_is_found_by_path_and_by_name(copy, tmp_path):
    assert resolve_base(BaseModelRef(model=str(copy)), tmp_path) == copy
    assert resolve_base(BaseModelRef(model="Tiny"), tmp_path) == copy


def test_a_base_that_is_not_there_is_named_with_its_mend(tmp_path):
    with pytest.raises(InvalidInput, match="Nowhere") as refusal:
        resolve_base(BaseModelRef(model="Nowhere"), tmp_path)
    assert "models folder" in refusal.value.problems[0].mend


def test_pickled_weights_are_refused(copy, tmp_path):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(InvalidInput, match="safetensors"):
        resolve_base(BaseModelRef(model="Tiny"), tmp_path)
