"""Whether parsed JSON has the shape that a specification says.

A specification is a type, a set of allowed words, `[item]` for a list, a dict of required keys
(more keys are welcome; one that ends in "?" may be absent), or `(specification, None)` where null
is allowed.
"""

from __future__ import annotations

import math
from typing import Any

from compressor.errors import InputError

_TYPE_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def check_shape(value: Any, expected: Any, where: str, key: str = "") -> None:
    """Check that a value has the shape of a specification.

    Args:
        value: parsed JSON.
        expected: the specification.
        where: how messages call it, a file name as a rule.
        key: the place of the value in it.

    Raises:
        InputError: the first key that is missing or holds the wrong kind of value.
    """
    if isinstance(expected, tuple):
        if value is not None:
            check_shape(value, expected[0], where, key)
    elif isinstance(expected, dict):
        if not isinstance(value, dict):
            raise _wrong(value, "an object", key, where)
        _check_keys(value, expected, key, where)
    elif isinstance(expected, list):
        if not isinstance(value, list):
            raise _wrong(value, "a list", key, where)
        for index, item in enumerate(value):
            check_shape(item, expected[0], where, f"{key}[{index}]")
    elif isinstance(expected, set):
        if value not in expected:
            raise _wrong(value, " or ".join(sorted(expected)), key, where)
    elif not _is_a(value, expected):
        raise _wrong(value, _TYPE_NAMES[expected], key, where)


def _check_keys(value: dict[str, Any], expected: dict[str, Any], key: str, where: str) -> None:
    for wanted, part in expected.items():
        name = wanted.removesuffix("?")
        place = f"{key}.{name}" if key else name
        if name in value:
            check_shape(value[name], part, where, place)
        elif name == wanted:
            raise InputError(f"{place} is missing", where=where)


def _is_a(value: Any, kind: type) -> bool:
    if kind is float:
        # JSON writes 2.0 as 2 in other tools; true is an int to Python and no number to anyone.
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _wrong(value: Any, expected: str, key: str, where: str) -> InputError:
    return InputError(
        f"{key or 'the report'}: expected {expected}, found {value!r:.80}", where=where
    )
