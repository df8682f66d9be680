"""Names of the files of a bulk refinement: its inputs, its outputs, and its part of the work."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from hepbridge.core.errors import ConfigError, DataError, OutputError

__all__ = ["named_outputs", "parse_shard"]

_KEPT = (".h5", ".hdf5")  # formats with room for all that an input carries


def named_outputs(inputs: Sequence[str], output: str) -> dict[Path, Path]:
    """Input -> output. Patterns (``in/*.h5``) are expanded, in the order of the names.

    One file goes into the file ``output``; into a folder of that name if it ends with a slash, is a
    folder, or there are several inputs or a pattern. The folder is made; files in it are called
    like the inputs, and are HDF5.

    Raises DataError if a pattern has no files, ConfigError if two inputs would have one output.
    """
    found: list[Path] = []
    for name in inputs:
        matches = [name] if Path(name).exists() or not glob.has_magic(name) else glob.glob(name)
        if not matches:
            raise DataError(f"no file is called {name}")
        found += sorted(map(Path, matches))
    single = len(found) == 1 and found[0] == Path(inputs[0])
    folder = Path(output)
    if single and not output.endswith("/") and not folder.is_dir():
        return {found[0]: folder}
    if folder.suffix.lower() in (*_KEPT, ".npy", ".root") and not folder.is_dir():
        raise ConfigError(f"{output} is the name of a file; {len(found)} inputs need a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    files: dict[Path, Path] = {}
    names: dict[str, Path] = {}
    for path in found:
        name = path.name if path.suffix.lower() in _KEPT else f"{path.stem}.h5"
        if names.setdefault(name, path) != path:
            raise ConfigError(
                f"{names[name]} and {path} would both become {folder / name}; refine them into "
                "different folders"
            )
        files[path] = folder / name
    return files


def parse_shard(text: str | None) -> tuple[int, int]:
    """``"3/10"`` -> (3, 10); nothing is the whole. Raises ConfigError."""
    if text is None:
        return 0, 1
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise ConfigError(f"--shard is I/N with I from 0 to N - 1, such as 0/10; not {text!r}")
    return int(match[1]), int(match[2])
