"""Settings of the registry: its database, its key, and the largest adapter it takes."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings import Settings


class RegistrySettings(Settings):
    """`SLUICE_REGISTRY_*`, over the shared `SLUICE_*`."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_", extra="ignore", frozen=True)

    registry_database: str = ""
    """SQLAlchemy URL, as `postgresql+psycopg://user@host/sluice`; by default SQLite under home."""
    registry_keys: Path | None = None
    """Folder of the signing key; by default `<home>/keys/registry`."""
    registry_maximum_rank: int = Field(default=256, ge=1, le=256)

    @property
    def database_url(self) -> str:
        return self.registry_database or f"sqlite:///{self.home.resolve() / 'registry.db'}"

    @property
    def key_folder(self) -> Path:
        return self.registry_keys or self.home / "keys" / "registry"
