"""The bundle of a promoted adapter: its card, weights, chain, pages, and what closes them (G10)."""

from __future__ import annotations

from collections.abc import Sequence

from contracts.base import Digest
from contracts.card import PROMOTION_TYPE, Promotion
from contracts.envelope import Recorded
from contracts.registry import CandidateRegistered
from contracts.rollout import StageJudged
from services.registry import chain
from services.registry.page import page
from services.registry.readme import render
from shared.artifacts import ArtifactStore, Tree
from shared.bundles import layout
from shared.bundles.card import SignedCard
from shared.signing import SigningKey, sign


def bundle(
    registered: CandidateRegistered,
    signed: SignedCard,
    links: Sequence[chain.Link],
    done: Recorded,
    artifacts: ArtifactStore,
    key: SigningKey,
) -> Digest:
    """The signed bundle in the artifact store, of the rollout that `done` says is complete."""
    card = signed.card
    verdict_of = (link.made.verdict for link in links)
    stages = [verdict for verdict in verdict_of if isinstance(verdict, StageJudged)]
    made = {
        layout.README: render(card).encode(),
        layout.PAGE: page(card, stages, payload=signed.payload).encode(),
        layout.PUBLIC_KEY: key.public.pem,
    }
    files = {
        **layout.candidate_tree(registered.card, Tree(signed.files)).files,
        **chain.files(links),
        **{name: artifacts.put(content) for name, content in made.items()},
    }
    promotion = Promotion(
        adapter_id=card.adapter_id,
        deployment=registered.deployment,
        card=signed.payload,
        links=tuple(link.payload for link in links),
        rollback=card.rollback,
        at=done.at.isoformat(),
    )
    files[layout.PROMOTION] = artifacts.put(sign(PROMOTION_TYPE, promotion, files, key))
    return artifacts.put(Tree(files).to_bytes())
