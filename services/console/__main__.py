"""Run the console: `python -m services.console`."""

from contracts.base import Service
from services.console.app import create_app
from shared.messaging.host import host

if __name__ == "__main__":
    host(Service.CONSOLE, create_app)
