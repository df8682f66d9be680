"""The text of a detector's description: YAML read from files, and written for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hepbridge.core.errors import ConfigError

__all__ = ["dumped", "read_text"]

MAX_FILE_BYTES = 1 << 20


def read_text(path: Path) -> str:
    """The text of a file. Raises ConfigError if it cannot be read or is too large."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES >> 10} KiB: no detector")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the detector {path}: {error}") from error


def dumped(record: dict[str, Any]) -> str:
    """The YAML text of a record: slices and grids on one line each, everything else in blocks."""
    text: str = yaml.dump(record, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=96)
    return text


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> Any:
        one_line = "slices" not in mapping and "layers" not in mapping
        return super().represent_mapping(tag, mapping, flow_style=one_line)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        one_line = all(isinstance(x, int | float) for x in sequence)
        return super().represent_sequence(tag, sequence, flow_style=one_line)
