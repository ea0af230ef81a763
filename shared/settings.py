"""Settings every service shares, from `SLUICE_*` environment variables."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where the bus, the store and serving are."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_", extra="ignore", frozen=True)

    home: Path = Path(".sluice")
    """Keys, models, artifacts, embedded NATS data and work folders live under it."""
    nats_url: str = "nats://127.0.0.1:4222"
    nats_credentials: Path | None = None
    """File with the login of this process, `user:password`; None where the server asks for none.
    A login in `nats_url` itself does as well."""
    serving_url: str = "http://127.0.0.1:8080/v1"
    service_key: str = ""
    """The platform's own key to serving; by default a secret under `<home>/keys`."""
    artifacts: str = ""
    """fsspec URL of the artifact store; by default `<home>/artifacts`."""
    harness_tasks: Path | None = None
    """A folder of further lm-evaluation-harness tasks, beside ours and the harness's own, that jobs
    may name for G5. Its `!function`s run in evaluation: it is the operator's, never a tenant's."""
    otlp_endpoint: str | None = None
    """OTLP/HTTP collector, as `http://host:4318`; None writes spans under `<home>/traces`."""
    metrics_port: int | None = None
    """Answer Prometheus from this port on, one port a service; see `shared.metrics`."""

    @property
    def artifacts_url(self) -> str:
        return self.artifacts or (self.home.resolve() / "artifacts").as_uri()
