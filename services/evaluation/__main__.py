"""`python -m services.evaluation`."""

from __future__ import annotations

from contracts.base import Service
from services.evaluation.app import create_app
from shared.messaging.host import host

if __name__ == "__main__":
    host(Service.EVALUATION, create_app)
