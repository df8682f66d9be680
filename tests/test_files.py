"""Writing arrays: all of them, or an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hepbridge.core.files import save_array

LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from hepbridge.core.files import save_array

def plain(path, array):
    with open(path, "wb") as handle:
        np.save(handle, array)

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
path, short, failed = Path(sys.argv[1]), 0, 0
for n in range(2400, 2700, 3):
    try:
        {save}(path, np.ones(n))
    except OSError:
        failed += 1
    else:
        short += path.stat().st_size < 128 + 8 * n
print(short, failed)
"""


@pytest.mark.parametrize("array", [np.arange(7), np.ones((3, 4), "f4").T, np.zeros((0, 5))])
def test_arrays_come_back(tmp_path: Path, array: np.ndarray) -> None:
    save_array(tmp_path / "a.npy", array)
    found = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert np.array_equal(found, array) and found.dtype == array.dtype


@pytest.mark.parametrize(("save", "loses"), [("save_array", False), ("plain", True)])
def test_a_write_that_ends_too_early_is_an_error(tmp_path: Path, save: str, loses: bool) -> None:
    """Files may not grow beyond 20,000 bytes. `numpy.save` loses the end of some without a word
    (once it does not any more, `save_array` can go)."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.replace("{save}", save), tmp_path / "a.npy"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    short, failed = map(int, done.stdout.split())
    assert failed > 30 and (short > 0) == loses
