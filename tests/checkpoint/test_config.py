"""Unsafe keys at any depth, and any config at all in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoint import folders
from checkpoint.folders import config, put_json
from compressor.checkpoint.config import refuse_unsafe_keys
from compressor.checkpoint.folder import open_checkpoint
from compressor.errors import InputError

HERE = Path("config.json")
UNSAFE = [
    "auto_map",
    "trust_remote_code",
    "custom_pipelines",
    "transformers_weights",
    "_attn_implementation",
    "_attn_implementation_internal",
    "attn_implementation",
    "experts_implementation",
]


@pytest.mark.parametrize("key", UNSAFE)
def test_unsafe_keys_are_found_at_any_depth(key):
    for holder in ({key: "x"}, {"a": {key: "x"}}, {"a": [{"b": [[{key: {}}]]}]}):
        with pytest.raises(InputError, match=rf"key .*{key}: it "):
            refuse_unsafe_keys(holder, HERE)
    refuse_unsafe_keys({"a": key, "b": [key], f"my_{key}_": 1}, HERE)


def test_a_flag_that_transformers_left_behind_is_harmless():
    refuse_unsafe_keys({"_attn_implementation_autoset": True}, HERE)
    with pytest.raises(InputError):
        refuse_unsafe_keys({"_attn_implementation_autoset": "evil/kernel"}, HERE)


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 10**20), st.floats(), st.text(max_size=4)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
keys = st.sampled_from(
    [*config(), "quantization_config", "num_labels", "num_key_value_heads", "head_dim"]
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return folders.make(tmp_path_factory.mktemp("fuzz") / "m")


@settings(
    max_examples=100, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(keys, anything, min_size=1, max_size=3))
def test_any_config_opens_or_is_refused(whole, changes):
    put_json(whole / "config.json", {**config(), **changes})
    try:
        checkpoint = open_checkpoint(whole)
    except InputError as refusal:
        refusal.message.encode()
    else:
        assert isinstance(checkpoint.layers, int)
        assert checkpoint.labels is None or all(isinstance(n, str) for n in checkpoint.labels)
        assert isinstance(checkpoint.architecture, str | None)
