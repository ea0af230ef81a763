"""`python -m services.curation`."""

from __future__ import annotations

from contracts.base import Service
from services.curation.app import create_app
from shared.messaging.host import host

if __name__ == "__main__":
    host(Service.CURATION, create_app)
