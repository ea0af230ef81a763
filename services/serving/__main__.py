"""`python -m services.serving`."""

from __future__ import annotations

from contracts.base import Service
from services.serving.app import create_app
from shared.messaging.host import host

if __name__ == "__main__":
    host(Service.SERVING, create_app)
