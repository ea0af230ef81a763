"""`python -m services.synthesis`."""

from __future__ import annotations

from contracts.base import Service
from services.synthesis.app import create_app
from shared.messaging.host import host

if __name__ == "__main__":
    host(Service.SYNTHESIS, create_app)
