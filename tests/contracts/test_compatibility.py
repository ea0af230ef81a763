"""Each kind of breaking change is noticed; each harmless one is not."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.compatibility import breaking_changes
from contracts.documents import DOCUMENTS, schema_of

OLD = {
    "type": "object",
    "additionalProperties": False,
    "required": ["id", "kind"],
    "properties": {
        "id": {"type": "string", "minLength": 1},
        "kind": {"enum": ["a", "b"], "type": "string"},
        "n": {"type": "integer", "maximum": 10, "default": 0},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "inner": {"$ref": "#/$defs/Inner"},
        "rows": {"type": "array", "items": {"$ref": "#/$defs/Inner"}},
        "open": {},
    },
    "$defs": {"Inner": {"type": "object", "properties": {"x": {"type": "number"}}}},
}


def changed(**edits: object) -> dict:
    """OLD with `path__to__key=value`; a value of `...` removes it."""
    schema = copy.deepcopy(OLD)
    for path, value in edits.items():
        *parents, last = path.split("__")
        target = schema
        for part in parents:
            target = target["$defs" if part == "defs" else part]
        if value is ...:
            del target[last]
        else:
            target[last] = value
    return schema


@pytest.mark.req("P1")
@pytest.mark.parametrize(
    ("new", "says"),
    [
        pytest.param(changed(properties__n=...), "$.n: removed", id="removed property"),
        pytest.param(
            changed(required=["id", "kind", "n"]), "$.n: newly required", id="newly required"
        ),
        pytest.param(
            changed(required=["id"]), "$.kind: no longer always there", id="no longer required"
        ),
        pytest.param(
            changed(properties__id={"type": "integer"}),
            "$.id: type narrowed, no longer string",
            id="another type",
        ),
        pytest.param(
            changed(defs__Inner__properties__x={"type": "integer"}),
            "$.inner.x: type narrowed, no longer number",
            id="narrowed behind a reference",
        ),
        pytest.param(
            changed(properties__kind__enum=["a"]), "$.kind: value 'b' removed", id="value removed"
        ),
        pytest.param(
            changed(properties__kind__enum=["a", "b", "c"]),
            "$.kind: value 'c' added, unknown to old readers",
            id="value added",
        ),
        pytest.param(
            changed(properties__id__minLength=2), "$.id: minLength raised to 2", id="lower bound"
        ),
        pytest.param(
            changed(properties__n__maximum=5), "$.n: maximum lowered to 5", id="upper bound"
        ),
        pytest.param(
            changed(properties__id__pattern="^x"), "$.id: pattern changed to '^x'", id="pattern"
        ),
        pytest.param(
            changed(properties__note={"type": "string"}),
            "$.note: alternative null removed",
            id="null no longer allowed",
        ),
        pytest.param(
            changed(
                properties__n={"anyOf": [{"type": "integer", "maximum": 10}, {"type": "null"}]}
            ),
            "$.n: alternative null added, unknown to old readers",
            id="may now be null",
        ),
        pytest.param(
            changed(properties__open={"type": "string"}),
            "$.open: type narrowed from anything to string",
            id="anything no longer",
        ),
    ],
)
def test_a_breaking_change_is_named(new: dict, says: str) -> None:
    assert says in breaking_changes(OLD, new)


@pytest.mark.parametrize(
    "new",
    [
        pytest.param(changed(properties__more={"type": "string"}), id="optional property"),
        pytest.param(changed(properties__n__maximum=20), id="wider bound"),
        pytest.param(changed(properties__id__description="who"), id="description"),
        pytest.param(changed(properties__n__default=3), id="default"),
    ],
)
def test_a_harmless_change_is_not(new: dict) -> None:
    assert breaking_changes(OLD, new) == []


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_a_schema_is_compatible_with_itself(name: str) -> None:
    assert breaking_changes(schema_of(name), schema_of(name)) == []


SCHEMAS = {name: schema for name in DOCUMENTS if (schema := schema_of(name))["properties"]}


@settings(deadline=None)
@given(st.data())
def test_removing_any_property_of_any_document_is_breaking(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(SCHEMAS)))
    new = copy.deepcopy(SCHEMAS[name])
    gone = data.draw(st.sampled_from(sorted(new["properties"])))
    del new["properties"][gone]
    assert f"$.{gone}: removed" in breaking_changes(SCHEMAS[name], new)
