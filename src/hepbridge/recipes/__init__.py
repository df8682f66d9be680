"""Recipes: YAML files that describe a training, and how they are changed from the outside."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from hepbridge.core.errors import ConfigError
from hepbridge.core.yaml_text import parse_yaml

__all__ = ["load", "names", "unknown"]

_GROUPS = {
    "": "refiners: hepbridge.train (hepbridge train {} --fast … --full …)",
    "generation": "generators: hepbridge.train_generator (hepbridge train {} --full …)",
    "unfolding": "unfoldings: hepbridge unfold train {} --response …",
}
"""By the folder of the recipes: what they train, and with what."""


def names(group: str = "") -> list[str]:
    """The recipes that ship with the package: of refiners, or of a group in a folder of its own."""
    folder = _folder(group)
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def load(
    recipe: str,
    config: Path | None = None,
    overrides: list[str] | None = None,
    *,
    group: str = "",
) -> dict[str, Any]:
    """The recipe of a name, changed by a YAML file and then by ``key.sub=value`` overrides.

    Values of overrides are YAML (``training.steps=500``, ``model.transport=null``). Mappings are
    merged key by key. Raises ConfigError on an unknown name or one of another group, an unreadable
    file or bad syntax.
    """
    if recipe not in names(group):
        raise unknown(recipe, ", ".join(names(group)))
    text = _folder(group).joinpath(f"{recipe}.yaml").read_text(encoding="utf-8")
    merged = _mapping(text, f"recipe {recipe!r}")
    if config is not None:
        try:
            text = Path(config).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the configuration {config}: {error}") from error
        merged = _merge(merged, _mapping(text, str(config)))
    for override in overrides or []:
        merged = _merge(merged, _parse_override(override))
    return merged


def unknown(recipe: str, available: str) -> ConfigError:
    """The error for a recipe that is none of those ``available`` here: it says where it belongs."""
    for group, words in _GROUPS.items():
        if recipe in names(group):
            return ConfigError(f"{recipe!r} is a recipe of {words.format(recipe)}")
    return ConfigError(f"unknown recipe {recipe!r}; available: {available}")


def _folder(group: str) -> Any:
    return resources.files(__name__).joinpath(group)


def _mapping(text: str, where: str) -> dict[str, Any]:
    found = parse_yaml(text, where)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError(
            f"{where} must be a mapping of keys to values, got {type(found).__name__}"
        )
    return found


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merge(out[key], value) if both else value
    return out


def _parse_override(text: str) -> dict[str, Any]:
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(
            f"override {text!r}: expected key.sub=value, as in --set training.steps=500"
        )
    out: Any = parse_yaml(value, f"override {text!r}: the value")
    for key in reversed(keys):
        out = {key: out}
    return out  # type: ignore[no-any-return]
