"""`python -m services.serving --base FOLDER --port N`: serving on its own."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn

from services.serving.app import build
from services.serving.settings import ServingSettings


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="services.serving", description=__doc__)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    settings = ServingSettings(**given)
    uvicorn.run(build(settings), host=settings.host, port=settings.port, log_level="warning")


if __name__ == "__main__":
    main()
