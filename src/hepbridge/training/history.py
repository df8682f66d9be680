"""What happened in a training: the records of its log, kept in memory and as JSON lines."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from hepbridge.core.errors import ConfigError, MissingExtraError
from hepbridge.core.files import write_text

__all__ = ["History", "Logbook"]


@dataclass
class History:
    """Records of a training, one per line of its log.

    A record has ``phase``, ``step`` (finished steps of that phase), ``loss`` (mean since the
    previous record), ``learning_rate``, ``seconds`` (of training, interruptions not counted) and,
    where the phase was validated, ``validation``. ``kept`` maps each phase with early stopping to
    the step whose weights it ended with.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def losses(self, phase: str) -> list[tuple[int, float]]:
        """(step, loss) of a phase."""
        return [(r["step"], r["loss"]) for r in self.records if r["phase"] == phase]

    def validations(self, phase: str) -> list[tuple[int, float]]:
        """(step, held-out number) of a phase."""
        return [
            (r["step"], r["validation"])
            for r in self.records
            if r["phase"] == phase and "validation" in r
        ]


class Logbook:
    """Writes records as JSON lines, and to TensorBoard if asked.

    The file is begun with the first record, or by `finish`: a training that fails before leaves
    nothing, and one without steps has none. It is first rewritten from ``history``: on resume it
    holds exactly what the checkpoint knows, so that no step appears twice.
    """

    def __init__(self, path: Path | None, history: History, *, tensorboard: bool = False) -> None:
        self._path, self._past = path, [*history.records]
        self._file: TextIO | None = None
        self._board = _summary_writer(path) if tensorboard else None
        for record in self._past:
            self._draw(record)

    def finish(self) -> None:
        """Replace the file that an earlier training left; without any record it goes."""
        if self._past or self._file is not None:
            self._begin()
        elif self._path is not None:
            self._path.unlink(missing_ok=True)

    def _begin(self) -> None:
        if self._path is not None and self._file is None:
            write_text(self._path, "".join(json.dumps(r) + "\n" for r in self._past))
            self._file = self._path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        self._begin()
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        self._draw(record)

    def _draw(self, record: dict[str, Any]) -> None:
        if self._board is not None:
            for key in ("loss", "learning_rate", "validation"):
                if key in record:
                    self._board.add_scalar(f"{record['phase']}/{key}", record[key], record["step"])

    def close(self) -> None:
        for output in (self._file, self._board):
            if output is not None:
                output.close()


def _summary_writer(path: Path | None) -> Any:
    if path is None:
        raise ConfigError("tensorboard = true needs a log file, beside which its folder is made")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError.of("tensorboard", "tensorboard", "training.tensorboard") from error
    return SummaryWriter(str(path.with_suffix(".tensorboard")), purge_step=0)
