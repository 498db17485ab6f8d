"""Reading the price files a user names: TOML, YAML or JSON, numbers never through a binary float where avoidable."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from agentbudget.errors import ConfigurationError


def read_text(path: str | Path, *, what: str) -> str:
    """The text of *path*; *what* names the option in the error."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{what}={str(path)!r} cannot be read: {error}.") from error


def read_mapping(path: str | Path, *, what: str) -> Mapping[object, object]:
    """The top-level table of the TOML, YAML or JSON file at *path*.

    Raises:
        ConfigurationError: unreadable, malformed, of another kind, or YAML without PyYAML installed.
    """
    text = read_text(path, what=what)
    kind = Path(path).suffix.lower()
    if kind not in {".toml", ".json", ".yaml", ".yml"}:
        raise ConfigurationError(f"{what}={str(path)!r}: a price file ends in .toml, .yaml, .yml or .json.")
    try:
        document = _parse(text, kind, what, path)
    except ValueError as error:
        raise ConfigurationError(f"{what}={str(path)!r} is not valid {kind[1:].upper()}: {error}") from error
    if not isinstance(document, Mapping):
        raise ConfigurationError(f"{what}={str(path)!r}: expected a table of models, not {type(document).__name__}.")
    return document


def _parse(text: str, kind: str, what: str, path: str | Path) -> object:
    if kind == ".toml":
        return tomllib.loads(text, parse_float=str)
    if kind == ".json":
        return json.loads(text, parse_float=str)
    try:
        yaml = import_module("yaml")
    except ImportError:
        raise ConfigurationError(
            f"{what}={str(path)!r}: reading YAML needs PyYAML (`pip install pyyaml`); TOML needs nothing."
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
