"""What every training does around its model file: its name, its checkpoint, its provenance."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hepbridge import __version__
from hepbridge.core.errors import OutputError
from hepbridge.core.files import check_output
from hepbridge.core.jobs import Request

__all__ = ["beside", "provenance", "wanted"]


def wanted(
    output: Path,
    request: Request,
    stored: Callable[[Path], dict[str, Any]],
    *,
    resume: bool,
    overwrite: bool,
) -> bool:
    """Is there something to train? Not if the file is the answer to the same request already.

    ``stored``: reads the provenance of a model file. Without ``resume``, checkpoints of a model that is
    to be replaced go.

    Raises OutputError if the file cannot be written, or is there and something else.
    """
    if output.suffix != ".safetensors":
        raise OutputError(f"cannot write {output}: the name of a model file ends in .safetensors")
    if output.exists() and not overwrite and _is_answer(output, request, stored):
        return False
    check_output(output, overwrite=overwrite)
    if overwrite and not resume:
        for ending in ("checkpoint", "acceptance.checkpoint"):
            beside(output, ending).unlink(missing_ok=True)
    return True


def _is_answer(output: Path, request: Request, stored: Callable[[Path], dict[str, Any]]) -> bool:
    try:
        return bool(stored(output).get("request") == request.fields)
    except (ValueError, KeyError):
        return False


def beside(output: Path, ending: str) -> Path:
    """``output.ending``, in the same folder."""
    return output.with_name(f"{output.name}.{ending}")


def provenance(request: Request, **more: Any) -> dict[str, Any]:
    """Where a model comes from: request, versions, date."""
    return {
        "request": json.loads(json.dumps(request.fields)),
        **more,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "hepbridge": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
