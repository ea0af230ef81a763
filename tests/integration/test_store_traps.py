"""Trap 7 of `test_traps`: artifacts live in files, by digest, and a flipped bit is an error."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.artifacts import ArtifactStore
from shared.artifacts.store import Tree
from shared.errors import (
    ArtifactCorrupt,
    ArtifactMissing,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "store").as_uri())


def test_a_flipped_bit_is_found_on_get_and_on_fetch(store: ArtifactStore, tmp_path: Path) -> None:
    digest = store.put(b"weights" * 1000)
    (blob,) = (p for p in (tmp_path / "store").rglob("*") if p.is_file())
    content = bytearray(blob.read_bytes())
    content[3500] ^= 1
    blob.write_bytes(content)
    with pytest.raises(ArtifactCorrupt):
        store.get(digest)
    with pytest.raises(ArtifactCorrupt):
        store.fetch(digest, tmp_path / "out" / "weights")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "", "."])
def test_a_tree_that_names_a_path_outside_itself_is_refused(
    store: ArtifactStore, tmp_path: Path, name: str
) -> None:
    blob = store.put(b"x")
    manifest = store.put(Tree({name: blob}).to_bytes())
    with pytest.raises(ArtifactCorrupt):
        store.fetch_tree(manifest, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "sha256:", "md5:00", "x"])
def test_a_digest_that_is_none_never_becomes_a_path(store: ArtifactStore, digest: str) -> None:
    with pytest.raises(ArtifactMissing, match="is no digest"):
        store.get(digest)
    manifest = store.put(Tree({"file": digest}).to_bytes())
    with pytest.raises(ArtifactCorrupt):
        store.tree(manifest)


def test_concurrent_writers_of_one_content_leave_one_blob(
    store: ArtifactStore, tmp_path: Path
) -> None:
    content = os.urandom(1 << 20)
    with ThreadPoolExecutor(16) as pool:
        digests = set(pool.map(lambda _: store.put(content), range(64)))
    assert len(digests) == 1
    assert store.get(digests.pop()) == content
    assert len([p for p in (tmp_path / "store").rglob("*") if p.is_file()]) == 1


def test_a_full_disk_leaves_no_partial_blob(store: ArtifactStore, tmp_path: Path) -> None:
    script = f"""
        import resource, signal
        from shared.artifacts import ArtifactStore
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        try:
            ArtifactStore("{(tmp_path / "store").as_uri()}").put(b"x" * 1_000_000)
        except OSError as error:
            print(error.errno)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "27"  # EFBIG, as ENOSPC would be
    assert [p for p in (tmp_path / "store").rglob("*") if p.is_file()] == []
