"""`sluice schema`: the published JSON Schemas and the AsyncAPI document."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.options import Json


def schema(
    name: Annotated[str | None, typer.Argument(help="One schema; without it, their names.")] = None,
    asyncapi: Annotated[
        bool, typer.Option("--asyncapi", help="The AsyncAPI 3.0 document.")
    ] = False,
    json: Json = False,
) -> None:
    """Print the schema of a job, an event or any other document."""
    import json as text

    from contracts.asyncapi import asyncapi_document
    from contracts.base import Problem
    from contracts.documents import DOCUMENTS, schema_of
    from services.cli.reporting import emit
    from shared.errors import InvalidInput

    if asyncapi:
        print(text.dumps(asyncapi_document(), indent=2, ensure_ascii=False))
    elif name is None:
        if json:
            emit(sorted(DOCUMENTS))
        else:
            print("\n".join(sorted(DOCUMENTS)))
    elif name in DOCUMENTS:
        print(text.dumps(schema_of(name), indent=2, ensure_ascii=False))
    else:
        raise InvalidInput(
            [Problem(where=name, problem="is no schema", mend="list them with `sluice schema`")]
        )
