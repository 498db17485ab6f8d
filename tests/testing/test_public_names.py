"""The kit's public names."""

from __future__ import annotations

import pytest

from agentbudget import testing


def test_every_public_name_is_there() -> None:
    assert set(testing._HOME) == set(testing.__all__)
    for name in testing.__all__:
        assert getattr(testing, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'NoSuchThing'"):
        testing.NoSuchThing  # noqa: B018 - looking is enough
