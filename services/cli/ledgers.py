"""Reading a ledger or a file of pilot runs."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from contracts.base import Problem
from contracts.economics import Ledger, Pilots
from shared.errors import InvalidInput
from shared.problems import problems_of

Book = TypeVar("Book", Ledger, Pilots)


def read_ledger(path: Path) -> Ledger:
    """The ledger in a YAML or JSON file. Raises InvalidInput."""
    return _read(path, Ledger, "examples/economics/ledger.yaml")


def read_pilots(path: Path) -> Pilots:
    """The pilot runs in a YAML or JSON file. Raises InvalidInput."""
    return _read(path, Pilots, "examples/economics/pilots.yaml")


def _read(path: Path, kind: type[Book], example: str) -> Book:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return kind.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(problems_of(error)) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(
            [
                Problem(
                    where=str(path),
                    problem=f"cannot be read: {error}",
                    mend=f"give a YAML file like {example}",
                )
            ]
        ) from error
