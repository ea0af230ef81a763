"""Runs inside the sandbox: an answer's query and the expected one, on the same tables."""

import json
import sqlite3
import sys

READS = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
MAXIMUM_ROWS = 100_000


def main() -> None:
    given = json.load(sys.stdin)
    database = sqlite3.connect(":memory:")
    database.executescript(given["schema"])
    expected = database.execute(given["query"]).fetchall()
    database.set_authorizer(
        lambda action, *_: sqlite3.SQLITE_OK if action in READS else sqlite3.SQLITE_DENY
    )
    try:
        rows = database.execute(given["answer"].rstrip().rstrip(";")).fetchmany(MAXIMUM_ROWS)
    except sqlite3.Error as error:
        return tell(given["mark"], "unusable", f"{type(error).__name__}: {error}")
    if "order by" not in given["query"].lower():
        expected, rows = sorted(expected, key=repr), sorted(rows, key=repr)
    if rows == expected:
        return tell(given["mark"], "right", "")
    reason = f"{len(rows)} rows, {len(expected)} expected; first {rows[:1]}, not {expected[:1]}"
    tell(given["mark"], "wrong", reason)
    return None


def tell(mark: str, outcome: str, reason: str) -> None:
    print(f"{mark}{json.dumps({'outcome': outcome, 'reason': reason})}", flush=True)


main()
