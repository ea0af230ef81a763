"""`python -m services.monitoring`."""

from contracts.base import Service
from services.monitoring.app import create_app
from shared.messaging.host import host

if __name__ == "__main__":
    host(Service.MONITORING, create_app)
