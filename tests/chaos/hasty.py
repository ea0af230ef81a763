"""`sluice` whose supervisor never waits long, so that a service can be killed often.

    python -m tests.chaos.hasty up --home HOME …

The pause before a restart doubles with each quick death, up to half a minute; fifty deaths of each
service would take an hour.
"""

from services.cli.main import app
from services.cli.supervision import supervisor

LONGEST_PAUSE_S = 0.5

if __name__ == "__main__":
    supervisor.LONGEST_PAUSE_S = LONGEST_PAUSE_S
    app()
