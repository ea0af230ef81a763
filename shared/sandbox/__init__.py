"""Run code nobody trusts: no network, no host files, hard limits, nothing left behind."""

from shared.sandbox.limits import Limits
from shared.sandbox.sandbox import Ending, Sandbox, SandboxResult

__all__ = ["Ending", "Limits", "Sandbox", "SandboxResult"]
