"""Trees round-trip through JSON exactly, and anything else in them is refused by its path."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
from synthetic import make_normalisers, make_policy_specs

from robopolicy import policies
from robopolicy.core.errors import SpecError
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.core.specs import PolicySpecs


@dataclass(frozen=True)
class Everything:
    number: float
    count: int
    text: str
    flag: bool
    maybe: int | None
    pair: tuple[int, str]
    many: tuple[float, ...]
    named: dict[str, int]
    inner: Affine
    default: str = "given"


TREE = {
    "number": 0.1,
    "count": 2,
    "text": "t",
    "flag": True,
    "maybe": None,
    "pair": [1, "a"],
    "many": [1.5, 2.5],
    "named": {"a": 1},
    "inner": {"offset": [0.0], "scale": [1.0]},
}


@pytest.mark.parametrize("image", [False, True])
def test_specs_survive_json_exactly_and_in_order(image):
    specs = make_policy_specs(image=image)
    back = from_tree(PolicySpecs, json.loads(json.dumps(to_tree(specs))))
    assert back == specs
    assert list(back.specs.observation) == list(specs.specs.observation)


def test_normalisers_survive_json_to_the_last_bit():
    normalisers = make_normalisers(make_policy_specs())
    assert from_tree(Normalisers, json.loads(json.dumps(to_tree(normalisers)))) == normalisers


@pytest.mark.parametrize("name", policies.names())
def test_every_policy_config_survives_json(name):
    config_type = policies.family(name).Config
    assert from_tree(config_type, json.loads(json.dumps(to_tree(config_type())))) == config_type()


def test_defaults_fill_in_and_whole_numbers_become_floats():
    built = from_tree(Everything, {**TREE, "number": 3})
    assert built.default == "given"
    assert math.isclose(built.number, 3.0) and isinstance(built.number, float)


def test_paths_become_text():
    assert to_tree({"where": Path("a") / "b"}) == {"where": "a/b"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("number",), "0.1"),
        (("number",), True),
        (("count",), 2.0),
        (("count",), True),
        (("text",), 3),
        (("flag",), 1),
        (("maybe",), "x"),
        (("pair",), [1]),
        (("pair",), "ab"),
        (("pair", 1), 3),
        (("many",), 1.0),
        (("many", 1), "x"),
        (("named",), [1]),
        (("named", "a"), "x"),
        (("inner",), [1]),
        (("inner", "scale", 0), None),
    ],
)
def test_a_wrong_type_is_refused_by_its_path(path, value):
    tree = copy.deepcopy(TREE)
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(SpecError, match=str(path[0])):
        from_tree(Everything, tree)


def test_unknown_and_missing_fields_are_listed():
    with pytest.raises(SpecError, match=r"unknown fields \['extra'\]; known: .*'count'"):
        from_tree(Everything, {**TREE, "extra": 1})
    with pytest.raises(SpecError, match=r"Everything.inner: missing fields \['scale'\]"):
        from_tree(Everything, {**TREE, "inner": {"offset": [0.0]}})
    with pytest.raises(SpecError, match=r"Everything: expected a mapping, got None"):
        from_tree(Everything, None)
