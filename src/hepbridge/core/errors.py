"""Error types. A user error is one message: what was found, where, what is allowed, what to do.

Every class carries the exit code with which the command line ends (`docs/cli.md` lists them).
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DataError",
    "DomainError",
    "HepbridgeError",
    "MissingExtraError",
    "ModelFileError",
    "OutputError",
    "SimulationError",
    "TrainingInterrupted",
    "VerificationError",
]


class HepbridgeError(Exception):
    """Base of all errors that hepbridge raises on purpose."""

    exit_code = 1


class DataError(HepbridgeError, ValueError):
    """Input data that cannot be what it claims to be: unreadable file, wrong shape, NaN, bad energies."""

    exit_code = 3


class ModelFileError(HepbridgeError, ValueError):
    """A model file that is corrupted, foreign, of an unknown version, or for another detector."""

    exit_code = 4


class ConfigError(HepbridgeError, ValueError):
    """A recipe, an option or a name that does not exist or has a value that is not allowed."""

    exit_code = 5


class OutputError(HepbridgeError, OSError):
    """An output that exists already, cannot be written, or does not fit on the disk."""

    exit_code = 6


class DomainError(HepbridgeError, ValueError):
    """Showers outside the range in which the model was trained, where the user asked for strictness."""

    exit_code = 7


class MissingExtraError(HepbridgeError, ImportError):
    """An optional library is needed; the message says how to install it."""

    exit_code = 8

    @classmethod
    def of(cls, extra: str, library: str, purpose: str) -> MissingExtraError:
        return cls(
            f"{purpose} needs the optional library {library!r}: pip install 'hepbridge[{extra}]'"
        )


class SimulationError(HepbridgeError, RuntimeError):
    """The worker process of a simulation crashed or went silent; the message names its log."""

    exit_code = 9


class VerificationError(DataError):
    """An output that is not what its manifest says, or is not the one that was asked for."""

    exit_code = 10


class TrainingInterrupted(HepbridgeError):
    """A signal ended the training; its state is in the checkpoint if one was asked for."""

    exit_code = 130
