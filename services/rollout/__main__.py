"""`python -m services.rollout`."""

from contracts.base import Service
from services.rollout.app import create_app
from shared.messaging.host import host

if __name__ == "__main__":
    host(Service.ROLLOUT, create_app)
