"""The registry, wired."""

from __future__ import annotations

from contracts.base import Service
from services.registry import handlers
from services.registry.adapters.tokenizers import TokenizerFolder
from services.registry.registry import Registry
from services.registry.settings import RegistrySettings
from services.registry.store import RegistryStore
from shared.messaging.broker import Bus
from shared.messaging.host import App
from shared.messaging.steps import Steps
from shared.settings import Settings
from shared.signing import SigningKey, load_ring


def create_app(settings: Settings) -> App:
    """The only wiring."""
    own = RegistrySettings(**settings.model_dump())
    bus = Bus(Service.REGISTRY, own)
    steps = Steps(bus)
    key = SigningKey.load_or_create(own.key_folder)
    registry = Registry(
        artifacts=steps.artifacts,
        key=key,
        earlier_keys=load_ring(own.key_folder / "signing-key.pub"),
        store=RegistryStore(own.database_url),
        tokenizers=TokenizerFolder(own.home / "models"),
        maximum_rank=own.registry_maximum_rank,
    )
    handlers.register(steps, registry)
    return App(bus)
