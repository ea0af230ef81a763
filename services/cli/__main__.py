"""`python -m services.cli` is `sluice`."""

from services.cli.main import app

app(prog_name="sluice")
