"""Settings of the console, from `SLUICE_CONSOLE_*` environment variables."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import Misconfigured


class ConsoleSettings(BaseSettings):
    """Where the console listens, who may use it, and how much it remembers."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_CONSOLE_", extra="ignore", frozen=True)

    host: str = "127.0.0.1"
    port: int = 8081
    token: str | None = None
    """What a person signs in with. Needed as soon as `host` is not the loopback."""
    hosts: tuple[str, ...] = ()
    """Further host names a browser may use for the console (behind a proxy, say)."""
    runs_kept: int = 500
    """Runs held in memory; older ones are read from the run log when asked for."""
    alerts_kept: int = 500
    label_rows: Path | None = None
    """JSON Lines of rows that raters label at `/label`; without it there is no such page."""
    label_names: tuple[str, ...] = ("keep", "reject")
    """The labels to choose from, as a JSON list."""
    label_lines: tuple[str, ...] = ("label",)
    """The lines of the rubric, as a JSON list."""
    label_raters: dict[str, str] = {}
    """Rater or adjudicator → the token they sign in with, as a JSON object. With it a label is
    taken only from whom it is said to be of; without it a rater is who the rater says."""
    label_round: int = 1
    label_minimum_kappa: float = 0.70
    """Agreement below this stops labelling."""

    @property
    def loopback(self) -> bool:
        return self.host == "localhost" or _is_loopback(self.host)

    @property
    def allowed_hosts(self) -> list[str]:
        """`Host` headers that are served, so that another site's name cannot be pointed here."""
        if not self.loopback and not self.hosts:
            return ["*"]  # the token guards it
        return ["127.0.0.1", "localhost", "[::1]", self.host, *self.hosts]

    def require_safe(self) -> None:
        """Raises Misconfigured if other machines could reach the console without a token.

        Also if a token does not tell who has it.
        """
        tokens = [*self.label_raters.values(), *([self.token] if self.token else [])]
        if not all(tokens) or len(set(tokens)) < len(tokens):
            raise Misconfigured(
                "two of the console's tokens are the same, or one is empty",
                mend="give every rater of SLUICE_CONSOLE_LABEL_RATERS a token of their own",
            )
        if not self.loopback and not self.token:
            raise Misconfigured(
                f"the console would listen on {self.host} without a token",
                mend="set SLUICE_CONSOLE_TOKEN, or SLUICE_CONSOLE_HOST=127.0.0.1",
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
