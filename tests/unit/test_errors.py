"""Errors of the user's code, described in one line."""

from __future__ import annotations

import json

import pytest

from rql_lightning.envs import make_vector_env
from rql_lightning.errors import EnvironmentContractError, described


def test_the_place_is_in_the_users_code_whatever_it_called():
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("no\nnumber")
    assert described(caught.value).startswith("JSONDecodeError: Expecting value")
    assert ", at test_errors.py:" in described(caught.value) and "\n" not in described(caught.value)


def test_an_error_that_was_not_raised_has_no_place():
    assert described(KeyError("a")) == "KeyError: 'a'"


def test_the_place_is_the_librarys_where_no_code_is_the_users():
    """And not that of the wrapper which describes it."""
    env = make_vector_env("Acrobot-v1", 1, "basic")
    env.reset(seed=[0])
    for each in env.unwrapped.envs:
        each.unwrapped.AVAIL_TORQUE = []
    with pytest.raises(EnvironmentContractError, match=r"found IndexError: .*, at acrobot\.py:\d+"):
        env.step(env.action_space.sample())
