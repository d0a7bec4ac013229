"""Specs to plain JSON/YAML trees and back, strictly: an unknown or missing field is an error."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from robopolicy.core.errors import SpecError

T = TypeVar("T")


def to_tree(value: Any) -> Any:
    """Frozen dataclasses, tuples, mappings and paths as dicts, lists and text, ready for JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_tree(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_tree(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_tree(v) for v in value]
    return str(value) if isinstance(value, os.PathLike) else value


def from_tree(cls: type[T], tree: Any, where: str = "") -> T:
    """Rebuild a dataclass from ``to_tree``'s output.

    Raises:
        SpecError: a field is unknown, missing or of the wrong type; names its path.
    """
    result = _build(cls, tree, where or cls.__name__)
    return typing.cast(T, result)


def _build(hint: Any, tree: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build_dataclass(hint, tree, where)
    if origin in (typing.Union, types.UnionType):
        if tree is None and type(None) in arguments:
            return None
        inner = [a for a in arguments if a is not type(None)]
        return _build(inner[0], tree, where) if len(inner) == 1 else tree
    if origin is tuple:
        if not isinstance(tree, (list, tuple)):
            raise SpecError(f"{where}: expected a list, got {tree!r}")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_build(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(tree))
        if len(arguments) != len(tree):
            raise SpecError(f"{where}: expected {len(arguments)} values, got {len(tree)}")
        return tuple(_build(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(arguments, tree)))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(tree, Mapping):
            raise SpecError(f"{where}: expected a mapping, got {tree!r}")
        return {k: _build(arguments[1], v, f"{where}.{k}") for k, v in tree.items()}
    if hint is float and isinstance(tree, int) and not isinstance(tree, bool):
        return float(tree)
    if hint in (int, float, str, bool) and type(tree) is not hint:
        raise SpecError(f"{where}: expected {hint.__name__}, got {tree!r}")
    return tree


def _build_dataclass(cls: type, tree: Any, where: str) -> Any:
    if not isinstance(tree, Mapping):
        raise SpecError(f"{where}: expected a mapping, got {tree!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(tree) - set(fields))
    if unknown:
        raise SpecError(f"{where}: unknown fields {unknown}; known: {sorted(fields)}")
    required = {
        n
        for n, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(tree))
    if missing:
        raise SpecError(f"{where}: missing fields {missing}")
    return cls(**{n: _build(hints[n], v, f"{where}.{n}") for n, v in tree.items()})
