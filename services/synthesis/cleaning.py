"""What a program says while it is made and run does not belong into the row it teaches (S5).

The program alone is kept: the fenced block, without debug output, recorded warnings, tracebacks or
paths of the machine it was written on. What the sandbox said is kept beside the rows instead.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"```[\w+-]*\n(.*?)(?:```|\Z)", re.DOTALL)
_DEBUG = re.compile(
    r"^\s*(?:print\(\s*f?[\"'](?:debug|dbg|trace|>>>)[^\n]*|(?:logging|logger|log)\.debug\([^\n]*"
    r"|console\.(?:log|debug)\([^\n]*|breakpoint\(\)|import pdb[^\n]*)$",
    re.IGNORECASE,
)
_NOISE = re.compile(
    r"^\s*(?:#|--)?\s*(?:Traceback \(most recent call last\)|File \"[^\"]+\", line \d+"
    r"|\S+:\d+: \w*Warning: |\w*Warning: |\[?(?:DEBUG|INFO|WARNING|WARN|ERROR|TRACE)\]?[: ]"
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S* (?:DEBUG|INFO|WARN))"
)
_PATH = re.compile(
    r"(?<![\w.])(?:/(?:home|Users|root|tmp|var|opt|mnt|private)/[\w.+/-]+|[A-Z]:\\[\w.\\ -]+)"
)
_BLOCK = re.compile(r"^(\s*)(?:if|elif|else|for|while|with|try|except|finally|def|class)\b.*:\s*$")


def cleaned(answer: str, comment: str = "#") -> str:
    """The program of an answer, stripped; `comment` begins a comment in its language."""
    fenced = _FENCE.search(answer)
    lines = (fenced.group(1) if fenced else answer).strip("\n").rstrip().splitlines()
    kept = [line for line in lines if not _NOISE.match(line)]
    kept = _without_debug(kept)
    return "\n".join(_without_path(line, comment) for line in kept).strip("\n")


def _without_debug(lines: list[str]) -> list[str]:
    """A debug line that is a block's only statement becomes `pass`, so that the block stands."""
    kept = []
    for number, line in enumerate(lines):
        if not _DEBUG.match(line):
            kept.append(line)
            continue
        indent = len(line) - len(line.lstrip())
        opener = _BLOCK.match(lines[number - 1]) if number else None
        after = next((li for li in lines[number + 1 :] if li.strip()), "")
        alone = len(after) - len(after.lstrip()) < indent
        if opener and alone:
            kept.append(" " * indent + "pass")
    return kept


def _without_path(line: str, comment: str) -> str:
    """A comment that names a machine's path loses the path; code keeps its strings."""
    code, mark, said = line.partition(comment)
    return f"{code}{mark}{_PATH.sub('…', said)}" if mark else line
