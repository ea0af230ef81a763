"""`python -m services.training`."""

from __future__ import annotations

from contracts.base import Service
from services.training.app import create_app
from shared.messaging.host import host

if __name__ == "__main__":
    host(Service.TRAINING, create_app)
