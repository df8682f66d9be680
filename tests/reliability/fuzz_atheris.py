"""Fuzzing of one reader that is led by coverage: optional, with `atheris` (pip install atheris).

    python tests/reliability/fuzz_atheris.py READER FOLDER [-max_total_time=60 …]

READER is one of `readers.TARGETS`; FOLDER keeps inputs that reached new code (it is made, with valid
files of that kind); the rest are options of libFuzzer. Only the Python of hepbridge is watched, not
the C of the libraries below. Whatever is no clear error, and every crash, ends it and is kept.
"""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["hepbridge"]):
    import readers
    from test_fuzz import SEEDS, write_seeds

    from hepbridge.core.errors import HepbridgeError


def main() -> None:
    name, corpus = sys.argv[1], Path(sys.argv[2])
    read, suffix = readers.TARGETS[name], Path(SEEDS[name][0]).suffix
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        if not corpus.exists():
            corpus.mkdir(parents=True)
            write_seeds(Path(folder))
            for seed in SEEDS[name]:
                shutil.copy(Path(folder) / seed, corpus / seed)
        path = Path(folder) / f"hostile{suffix}"

        def attack(data: bytes) -> None:
            path.write_bytes(data)
            with suppress(HepbridgeError):
                read(path)

        atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], attack)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
