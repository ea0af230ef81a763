"""`sluice keys` and `sluice countersign`: who signs, and a second signature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import Json

app = typer.Typer(help="The registry's signing key on this machine.", no_args_is_help=True)

Folder = Annotated[
    Path | None, typer.Option(help="Where the key is; by default <home>/keys/registry.")
]


def _folder(given: Path | None) -> Path:
    from shared.settings import Settings

    return given or Settings().home / "keys" / "registry"


@app.command("list")
def list_keys(folder: Folder = None, json: Json = False) -> None:
    """List the trusted public keys, the one that signs first."""
    from services.cli.reporting import emit
    from shared.signing import load_ring

    for place, key in enumerate(load_ring(_folder(folder) / "signing-key.pub")):
        state = "signs" if place == 0 else "verifies what it signed before"
        if json:
            emit({"key_id": key.key_id, "state": state})
        else:
            print(f"{key.key_id}  {state}")


@app.command()
def rotate(folder: Folder = None, json: Json = False) -> None:
    """Sign with a new key from now on; what the old one signed still verifies."""
    from services.cli.reporting import emit
    from shared.signing import SigningKey

    place = _folder(folder)
    made = SigningKey.rotate(place)
    if json:
        emit({"key_id": made.public.key_id})
        return
    print(f"{made.public.key_id} signs once the registry has restarted, then restart serving")
    print(f"give verifiers the new {place / 'signing-key.pub'}")


def countersign(
    path: Annotated[Path, typer.Argument(help="The bundle's folder (see `sluice card`).")],
    key: Annotated[
        list[Path], typer.Option(help="A file of public keys you trust, PEM. May be repeated.")
    ],
    signing_folder: Annotated[
        Path, typer.Option(help="Folder of your own signing key; made if there is none.")
    ],
    json: Json = False,
) -> None:
    """Add your signature to a bundle that verifies, for `sluice verify --threshold 2`."""
    from contracts.base import Problem
    from services.cli.reporting import emit
    from shared.bundles import layout, verify_bundle
    from shared.errors import InvalidInput
    from shared.signing import SigningKey, countersign, load_ring

    trusted = [public for file in key for public in load_ring(file)]
    found = verify_bundle(path, trusted)
    if not found.ok:
        problems = [
            Problem(where=link.name, problem=link.reason, mend="fetch the bundle again")
            for link in found.failed
        ]
        raise InvalidInput(problems)
    name = layout.PROMOTION if found.state == "promoted" else layout.CARD
    signer = SigningKey.load_or_create(signing_folder)
    file = path / name
    file.write_bytes(countersign(file.read_bytes(), trusted, signer))
    (path / layout.TREE_MARKER).unlink(missing_ok=True)  # the folder is no longer that tree
    public = signing_folder / "signing-key.pub"
    if json:
        emit({"file": str(file), "key_id": signer.public.key_id, "public_key": str(public)})
    else:
        print(f"{name} is signed by {signer.public.key_id} too; its public key is {public}")
