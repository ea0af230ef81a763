"""The base model that serving loads: a checkpoint folder, or a name under `<home>/models`."""

from __future__ import annotations

from pathlib import Path

from shared.errors import Misconfigured

MEND = "name a checkpoint folder with --base, or run `make assets`"


def base_folder(home: Path, named: str | None) -> Path:
    """The checkpoint's folder; without a name, the only one there is. Raises Misconfigured."""
    models = home / "models"
    if named:
        for folder in (Path(named), models / named):
            if (folder / "config.json").is_file():
                return folder.resolve()
        raise Misconfigured(f"no checkpoint {named!r}, here or under {models}", mend=MEND)
    found = [path.parent for path in sorted(models.glob("*/config.json"))]
    if len(found) == 1:
        return found[0].resolve()
    names = ", ".join(path.name for path in found) or "none"
    raise Misconfigured(f"which base model? under {models}: {names}", mend=MEND)
