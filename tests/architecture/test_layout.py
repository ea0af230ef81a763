"""The shape of the code: one-way imports, light starts, documented and small modules."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("contracts", "shared", "services", "kernels", "deploy")
MODULES = sorted(p.relative_to(ROOT) for name in PACKAGES for p in ROOT.glob(f"{name}/**/*.py"))
LONGEST = 400
LIGHT = ("diagnosis", "curation", "registry", "rollout", "monitoring", "console", "cli")
"""Services that start without torch: only training, evaluation and serving may need it."""


def test_imports_follow_the_layers() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [lint], check=False, cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout


def _entry(service: str) -> str | None:
    for module in (f"services.{service}.app", f"services.{service}.main"):
        if importlib.util.find_spec(module):
            return module
    return None


@pytest.mark.parametrize("service", [s for s in LIGHT if _entry(s)])
def test_a_light_service_starts_without_torch(service: str) -> None:
    program = f"import sys, {_entry(service)}; sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr or f"services.{service} imports torch at start"


def _only_reexports(tree: ast.Module) -> bool:
    return all(
        isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
        for node in tree.body
    )


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_is_documented_and_fits_the_eye(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree) or _only_reexports(tree), f"{path} has no docstring"
    assert text.count("\n") <= LONGEST, f"{path} is longer than {LONGEST} lines"


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if p.stem in {"utils", "helpers", "manager", "misc", "common"}] or [None],
)
def test_no_module_is_named_for_nothing(path: Path | None) -> None:
    assert path is None
