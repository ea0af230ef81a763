"""Whether a schema still serves the programs written against an earlier one.

One rule in both directions, because most documents travel both ways (a client publishes a job and
reads it back inside `accepted`): an old document must stay valid, and a new one must hold no
surprise for an old reader. So a property may be added if it is optional; nothing may be removed,
newly required, narrowed to fewer values, or, in an enumeration, widened by a value that an old
reader does not know.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """Every breaking change from `old` to `new`, as `path: what`. Empty: compatible. Pure."""
    changes: list[str] = []
    _compare(old, new, (old, new), "$", changes, frozenset())
    return changes


def _compare(
    old: Schema,
    new: Schema,
    roots: tuple[Schema, Schema],
    at: str,
    changes: list[str],
    visited: frozenset[tuple[str, str]],
) -> None:
    pair = (str(old.get("$ref", "")), str(new.get("$ref", "")))
    if any(pair):
        if pair in visited:
            return
        visited |= {pair}
    old, new = _resolve(old, roots[0]), _resolve(new, roots[1])
    _compare_types(old, new, at, changes)
    _compare_values(old, new, at, changes)
    _compare_bounds(old, new, at, changes)
    _compare_object(old, new, roots, at, changes, visited)
    for key in ("items", "additionalProperties"):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            _compare(before, after, roots, f"{at}[]", changes, visited)
    _compare_prefix(old, new, roots, at, changes, visited)
    _compare_alternatives(old, new, roots, at, changes, visited)


def _resolve(schema: Schema, root: Schema) -> Schema:
    """`$ref` followed, siblings kept; a one-armed `allOf` opened."""
    while True:
        if "$ref" in schema:
            target: Any = root
            for part in str(schema["$ref"]).removeprefix("#/").split("/"):
                target = target[part]
            schema = {**target, **{k: v for k, v in schema.items() if k != "$ref"}}
        elif len(schema.get("allOf", ())) == 1:
            rest = {k: v for k, v in schema.items() if k != "allOf"}
            schema = {**schema["allOf"][0], **rest}
        else:
            return schema


def _types(schema: Schema) -> set[str] | None:
    found = schema.get("type")
    if found is None:
        return None
    types = {found} if isinstance(found, str) else set(found)
    return types | {"integer"} if "number" in types else types


def _compare_types(old: Schema, new: Schema, at: str, changes: list[str]) -> None:
    before, after = _types(old), _types(new)
    if after is None or before == after:
        return
    if before is None:
        if not any(key in old for key in ("anyOf", "oneOf", "enum", "const")):
            changes.append(f"{at}: type narrowed from anything to {'/'.join(sorted(after))}")
        return
    if lost := before - after:
        changes.append(f"{at}: type narrowed, no longer {'/'.join(sorted(lost))}")
    if gained := after - before:
        changes.append(f"{at}: type widened to {'/'.join(sorted(gained))}")


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    found = schema.get("enum")
    return None if found is None else list(found)


def _compare_values(old: Schema, new: Schema, at: str, changes: list[str]) -> None:
    before, after = _values(old), _values(new)
    if before is None and after is None:
        return
    if before is None:
        changes.append(f"{at}: narrowed to the values {after}")
        return
    if after is None:
        changes.append(f"{at}: values no longer limited to {before}")
        return
    changes += [f"{at}: value {value!r} removed" for value in before if value not in after]
    changes += [
        f"{at}: value {value!r} added, unknown to old readers"
        for value in after
        if value not in before
    ]


def _compare_bounds(old: Schema, new: Schema, at: str, changes: list[str]) -> None:
    for key in _LOWER_BOUNDS:
        if key in new and new[key] > old.get(key, float("-inf")):
            changes.append(f"{at}: {key} raised to {new[key]}")
    for key in _UPPER_BOUNDS:
        if key in new and new[key] < old.get(key, float("inf")):
            changes.append(f"{at}: {key} lowered to {new[key]}")
    for key in ("pattern", "format"):
        if key in new and new[key] != old.get(key):
            changes.append(f"{at}: {key} changed to {new[key]!r}")


def _compare_object(
    old: Schema,
    new: Schema,
    roots: tuple[Schema, Schema],
    at: str,
    changes: list[str],
    visited: frozenset[tuple[str, str]],
) -> None:
    before: Schema = old.get("properties", {})
    after: Schema = new.get("properties", {})
    was_required, is_required = set(old.get("required", ())), set(new.get("required", ()))
    for name in before:
        if name not in after:
            changes.append(f"{at}.{name}: removed")
        else:
            _compare(before[name], after[name], roots, f"{at}.{name}", changes, visited)
    changes += [f"{at}.{name}: newly required" for name in sorted(is_required - was_required)]
    changes += [
        f"{at}.{name}: no longer always there"
        for name in sorted(was_required - is_required)
        if name in after and "default" not in after[name]
    ]
    if old.get("additionalProperties", True) and new.get("additionalProperties") is False:
        changes.append(f"{at}: closed to additional properties")


def _compare_prefix(
    old: Schema,
    new: Schema,
    roots: tuple[Schema, Schema],
    at: str,
    changes: list[str],
    visited: frozenset[tuple[str, str]],
) -> None:
    before, after = old.get("prefixItems", []), new.get("prefixItems", [])
    if len(before) != len(after):
        changes.append(f"{at}: {len(after)} items in place of {len(before)}")
    for index, (one, other) in enumerate(zip(before, after, strict=False)):
        _compare(one, other, roots, f"{at}[{index}]", changes, visited)


def _alternatives(schema: Schema) -> list[Schema]:
    return list(schema.get("anyOf") or schema.get("oneOf") or [])


def _compare_alternatives(
    old: Schema,
    new: Schema,
    roots: tuple[Schema, Schema],
    at: str,
    changes: list[str],
    visited: frozenset[tuple[str, str]],
) -> None:
    """Each alternative of one side needs a compatible one on the other."""
    before, after = _alternatives(old), _alternatives(new)
    if not before and not after:
        return
    before, after = before or [_bare(old)], after or [_bare(new)]

    def fits(one: Schema, other: Schema) -> bool:
        found: list[str] = []
        _compare(one, other, roots, at, found, visited)
        return not found

    if len(before) == len(after):  # the common case: say what changed inside
        pairs = list(zip(before, after, strict=True))
        if not all(any(fits(one, other) for other in after) for one in before):
            for index, (one, other) in enumerate(pairs):
                _compare(one, other, roots, f"{at}|{index}", changes, visited)
        return
    changes += [
        f"{at}: alternative {_label(one)} removed"
        for one in before
        if not any(fits(one, other) for other in after)
    ]
    changes += [
        f"{at}: alternative {_label(other)} added, unknown to old readers"
        for other in after
        if not any(fits(one, other) for one in before)
    ]


def _bare(schema: Schema) -> Schema:
    return {k: v for k, v in schema.items() if k not in ("default", "title", "description")}


def _label(schema: Schema) -> str:
    return str(schema.get("$ref", schema.get("type", schema.get("const", schema)))).split("/")[-1]
