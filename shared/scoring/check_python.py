"""Runs inside the sandbox: an answer's Python, then the tests, then one verdict line.

The program could print a verdict of its own, so the real one carries a mark that is read before
the program starts and kept out of its reach: the tests run in a child process without it.
"""

import json
import os
import sys
import traceback
from types import CodeType


def main() -> None:
    given = json.load(sys.stdin)
    mark = given["mark"]
    try:
        answer = compile(given["answer"], "answer.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return tell(mark, "unusable", f"does not compile: {error}")
    tests = compile(given["tests"], "tests.py", "exec", dont_inherit=True)
    del given
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        mark = ""
        os.close(reader)
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - for the rest of the process
        os._exit(passed(answer, tests, writer))
    os.close(writer)
    with os.fdopen(reader, errors="replace") as said:
        reason = said.read(4096)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == PASSED:
        return tell(mark, "right", "")
    tell(mark, "wrong", reason.strip() or "the program ended before its tests did")
    return None


PASSED = 76
"""An exit code that no program has by accident; one that knows it knows how to pass."""


def passed(answer: CodeType, tests: CodeType, writer: int) -> int:
    names: dict[str, object] = {"__name__": "answer"}
    try:
        exec(answer, names)
        exec(tests, names)
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
        os.write(writer, text.encode()[:2000])
        return 1
    return PASSED


def tell(mark: str, outcome: str, reason: str) -> None:
    print(f"\n{mark}{json.dumps({'outcome': outcome, 'reason': reason})}", flush=True)


main()
