"""Bundles: the folder of a signed adapter, and its offline verifier."""

from shared.bundles.adapter import AdapterConfig, inspect_adapter
from shared.bundles.base import base_serves
from shared.bundles.card import SignedCard, open_card
from shared.bundles.layout import required_attestations
from shared.bundles.promotion import require_promoted
from shared.bundles.verify import Link, Verification, verify_bundle

__all__ = [
    "AdapterConfig",
    "Link",
    "SignedCard",
    "Verification",
    "base_serves",
    "inspect_adapter",
    "open_card",
    "require_promoted",
    "required_attestations",
    "verify_bundle",
]
