"""`python -m services.diagnosis`."""

from __future__ import annotations

from contracts.base import Service
from services.diagnosis.app import create_app
from shared.messaging.host import host

if __name__ == "__main__":
    host(Service.DIAGNOSIS, create_app)
