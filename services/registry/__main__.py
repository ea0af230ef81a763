"""`python -m services.registry`."""

from __future__ import annotations

from contracts.base import Service
from services.registry.app import create_app
from shared.messaging.host import host

if __name__ == "__main__":
    host(Service.REGISTRY, create_app)
