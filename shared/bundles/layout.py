"""The layout of a bundle: names of its files, and which attestations its job asks for.

    card.dsse.json                 the Adaptation Card; its subjects are the files under adapter/
    adapter/…                      weights, configuration, fingerprints, recipe
    attestations/00-G2.dsse.json   one verdict each, in log order, each naming the one before
    promotion.dsse.json            closes the chain; its subjects are all other files
    README.md                      model card in Hugging Face's format
    card.html                      the same for people, with plots
    signing-key.pub                a copy of the key to verify with

A candidate's bundle has the card, the adapter and the attestations so far.
"""

from __future__ import annotations

from collections.abc import Mapping

from contracts.base import Digest, digest_of
from contracts.job import AdaptationJob
from shared.artifacts import Tree

CARD = "card.dsse.json"
PROMOTION = "promotion.dsse.json"
README = "README.md"
PAGE = "card.html"
PUBLIC_KEY = "signing-key.pub"
ADAPTER = "adapter/"
ATTESTATIONS = "attestations/"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
TREE_MARKER = ".tree"
"""What the artifact store leaves in a folder it has fetched: the digest of the rest."""

ALLOWED_SUFFIXES = frozenset({".safetensors", ".json", ".jsonl", ".jinja", ".txt", ".md"})
"""What may lie under adapter/. Pickles and code may not, signed or not."""


def attestation_path(index: int, name: str) -> str:
    """`attestations/07-G9-10%.dsse.json`."""
    return f"{ATTESTATIONS}{index:02d}-{name}.dsse.json"


def required_attestations(job: AdaptationJob) -> tuple[str, ...]:
    """Names of the verdicts without which the chain is incomplete."""
    canary = (f"G9-{stage.percent}%" for stage in job.rollout.stages)
    return (*job.gates.required, "G8", *canary)


def tree_digest(files: Mapping[str, Digest]) -> Digest:
    """The digest of the tree that holds `files`."""
    return digest_of(Tree(dict(files)).to_bytes())


def below(prefix: str, files: Mapping[str, Digest]) -> dict[str, Digest]:
    """The files under `prefix`, named relative to it."""
    return {
        name.removeprefix(prefix): digest
        for name, digest in files.items()
        if name.startswith(prefix)
    }


def candidate_tree(card: Digest, adapter: Tree) -> Tree:
    """The bundle of a candidate, from what `CandidateRegistered` names."""
    return Tree({CARD: card, **{ADAPTER + name: blob for name, blob in adapter.files.items()}})
