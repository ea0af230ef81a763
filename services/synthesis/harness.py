"""Runs inside the sandbox: static analysis, the answer with its tests, then its branch coverage.

The verdict carries a mark that is read before the program starts, as in `shared.scoring`. Tests
judge the program as written; coverage is counted on a copy whose conditions report their outcome.
"""

import ast
import builtins
import json
import os
import sys
import warnings
from types import CodeType

PASSED = 76
HARNESS = "python/v1"


class Reporting(ast.NodeTransformer):
    """Each condition becomes `_branch(number, condition)`."""

    def __init__(self) -> None:
        self.sites = 0

    def wrapped(self, test: ast.expr) -> ast.expr:
        number, self.sites = self.sites, self.sites + 1
        call = ast.Call(ast.Name("_branch", ast.Load()), [ast.Constant(number), test], [])
        return ast.copy_location(call, test)

    def visit_if_like(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        node.test = self.wrapped(node.test)  # type: ignore[attr-defined]
        return node

    visit_If = visit_While = visit_IfExp = visit_if_like  # noqa: N815

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        self.generic_visit(node)
        node.ifs = [self.wrapped(test) for test in node.ifs]
        return node


def complaints(tree: ast.Module) -> list[str]:
    """What static analysis holds against a program: names nobody binds, and what hides errors."""
    bound = set(dir(builtins)) | {"__name__", "__file__", "__doc__"}
    said = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(a.asname or a.name).split(".")[0] for a in node.names}
        elif isinstance(node, ast.ExceptHandler):
            if node.name:
                bound.add(node.name)
            if node.type is None:
                said.append(f"line {node.lineno}: bare except")
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
            bound.add(node.name)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            bound |= set(node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            if node.id in {"eval", "exec"}:
                said.append(f"line {node.lineno}: uses {node.id}")
            elif node.id not in bound:
                said.append(f"line {node.lineno}: name {node.id} is never bound")
    return said


def main() -> None:
    given = json.load(sys.stdin)
    mark, source = given["mark"], given["answer"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            tree = ast.parse(source, "answer.py")
            answer = compile(source, "answer.py", "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            return tell(mark, "does_not_compile", str(error))
    found = complaints(tree)
    if found:
        return tell(mark, "static_analysis", "; ".join(found[:5]))
    reporting = Reporting()
    copy = ast.fix_missing_locations(reporting.visit(tree))
    tests = compile(given["tests"], "tests.py", "exec", dont_inherit=True)
    version = sys.version.split()[0]
    facts = {"warnings": [str(w.message) for w in caught], "harness": HARNESS, "python": version}
    status, said, _ = in_child(answer, tests)
    if status != PASSED:
        return tell(mark, "tests_fail", said or "the program ended before its tests did", **facts)
    covered = 1.0
    if reporting.sites:
        _, _, outcomes = in_child(compile(copy, "answer.py", "exec", dont_inherit=True), tests)
        covered = len(outcomes) / (2 * reporting.sites)
    shape = [type(node).__name__ for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    return tell(
        mark, "passed", "", coverage=covered, branches=2 * reporting.sites, shape=shape, **facts
    )


def in_child(answer: CodeType, tests: CodeType) -> tuple[int, str, set[tuple[int, bool]]]:
    """(exit status, what went wrong, condition outcomes seen) of a run in a child process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.dup2(2, 1)  # its output is log, never a verdict
        status = run(answer, tests, writer)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader, errors="replace") as pipe:
        lines = pipe.read(1 << 16).splitlines()
    _, status = os.waitpid(child, 0)
    marks = [line[1:].partition(" ") for line in lines if line[:1] == "@"]
    outcomes = {(int(number), value == "1") for number, _, value in marks}
    said = "\n".join(line for line in lines if line[:1] != "@")
    return os.waitstatus_to_exitcode(status), said, outcomes


def run(answer: CodeType, tests: CodeType, writer: int) -> int:
    seen: set[tuple[int, bool]] = set()

    def branch(number: int, value: object) -> object:
        key = number, bool(value)
        if key not in seen:
            seen.add(key)
            os.write(writer, f"@{number} {int(key[1])}\n".encode())
        return value

    names: dict[str, object] = {"__name__": "answer", "_branch": branch}
    try:
        exec(answer, names)
        exec(tests, names)
    except BaseException as error:
        os.write(writer, f"{type(error).__name__}: {error}".replace("\n", " ").encode()[:2000])
        return 1
    return PASSED


def tell(mark: str, outcome: str, reason: str, **facts: object) -> None:
    print(f"\n{mark}{json.dumps({'outcome': outcome, 'reason': reason, **facts})}", flush=True)


if __name__ == "__main__":
    main()
