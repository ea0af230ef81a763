"""Reading a ledger file."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from contracts.base import Problem
from contracts.economics import Ledger
from shared.errors import InvalidInput
from shared.problems import problems_of


def read_ledger(path: Path) -> Ledger:
    """The ledger in a YAML or JSON file. Raises InvalidInput."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Ledger.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(problems_of(error)) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(
            [
                Problem(
                    where=str(path),
                    problem=f"cannot be read: {error}",
                    mend="give a YAML file like examples/economics/ledger.yaml",
                )
            ]
        ) from error
