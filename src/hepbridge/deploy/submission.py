"""Scripts that a batch system runs as an array of shards, where there is no Dask."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from hepbridge.core.errors import ConfigError, OutputError
from hepbridge.core.files import write_text

__all__ = ["write_scripts"]

_RUN = """\
#!/bin/bash
# One part of a bulk refinement under {system}: refine.sh --shard I/{shards}
# All that is left: refine.sh --verify
# Any part may be repeated at any time: what is finished is kept, and no two results differ.
set -euo pipefail
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-1}}"
mapfile -t inputs < {folder}/inputs.txt
exec {command} "$@" -- {model} "${{inputs[@]}}"
"""

_SLURM = {
    "array.sbatch": """\
#!/bin/bash
# One shard for each task. Partition, memory and time: edit here, or pass them to submit.sh.
#SBATCH --job-name=hepbridge-refine
#SBATCH --array=0-{last}
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --output={log}/shard-%a.log
#SBATCH --open-mode=append
exec bash {folder}/refine.sh --shard "$SLURM_ARRAY_TASK_ID/{shards}"
""",
    "finish.sbatch": """\
#!/bin/bash
# After all shards, however they ended: makes what is missing and reads every output again.
#SBATCH --job-name=hepbridge-verify
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --output={log}/finish.log
#SBATCH --open-mode=append
exec bash {folder}/refine.sh --verify
""",
    "submit.sh": """\
#!/bin/bash
# Submits the array and, after it, the last step. Arguments go to both: submit.sh --partition=long
# May be repeated: shards whose outputs are complete end within seconds.
set -euo pipefail
array=$(sbatch --parsable "$@" {folder}/array.sbatch)
echo "job ${{array%%;*}}: array of {shards} shards"
finish=$(sbatch --parsable --dependency="afterany:${{array%%;*}}" "$@" {folder}/finish.sbatch)
echo "job ${{finish%%;*}}: last step, after the array"
""",
}

_CONDOR = {
    "array.sub": """\
# One shard for each process; what is finished is kept if a job is evicted.
executable = {folder}/refine.sh
arguments = "--shard $(Process)/{shards}"
log = {log}/array.log
output = {log}/shard-$(Process).out
error = {log}/shard-$(Process).err
request_cpus = 1
request_memory = 4GB
max_retries = 3
should_transfer_files = IF_NEEDED
getenv = True
queue {shards}
""",
    "finish.sub": """\
# After all shards, however they ended: makes what is missing and reads every output again.
executable = {folder}/refine.sh
arguments = "--verify"
log = {log}/finish.log
output = {log}/finish.out
error = {log}/finish.err
request_cpus = 1
request_memory = 4GB
max_retries = 3
should_transfer_files = IF_NEEDED
getenv = True
queue 1
""",
    "refine.dag": """\
# FINAL: runs although shards failed.
JOB shards {folder}/array.sub
FINAL finish {folder}/finish.sub
""",
    "submit.sh": """\
#!/bin/bash
# Submits the array and, after it, the last step. Arguments go to condor_submit_dag, which prints the
# id of the job that submits both; theirs are in refine.dag.nodes.log.
# May be repeated (-force: although its files are there): complete shards end within seconds.
set -euo pipefail
condor_submit_dag -force "$@" {folder}/refine.dag
""",
}

_SYSTEMS = {"slurm": _SLURM, "htcondor": _CONDOR}


def write_scripts(
    folder: Path,
    system: str,
    model: str,
    inputs: Iterable[Path],
    options: Sequence[str],
    *,
    shards: int,
) -> Path:
    """Write the scripts of a bulk refinement in ``shards`` parts; returns the one that submits them.

    Scripts of the same request that are there are left as they are, edited or not; one that is
    missing is written.

    Args:
        system: ``slurm`` or ``htcondor``.
        options: words of ``hepbridge refine``: the output and all that makes the request.

    Raises ConfigError if the system is another one or a name has no place in such a script, and
    OutputError if the folder holds scripts of another request.
    """
    if system not in _SYSTEMS:
        raise ConfigError(
            f"scripts are written for --executor {' or '.join(_SYSTEMS)}, not {system!r}"
        )
    folder = folder.absolute()
    paths = [str(path.absolute()) for path in inputs]
    if unfit := [p for p in (*paths, str(folder)) if "\n" in p]:
        raise ConfigError(f"the name {unfit[0]!r} cannot stand in a script: it has a line break")
    if any(c in str(folder) for c in " \"'$%"):
        raise ConfigError(f"{folder}: a folder of scripts needs a name without spaces and quotes")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    command = shlex.join([sys.executable, "-m", "hepbridge", "--quiet", "refine", *options])
    words = {"folder": folder, "log": folder, "shards": shards, "last": shards - 1}
    run = _RUN.format(command=command, model=shlex.quote(model), system=system, **words)
    scripts = {"inputs.txt": "".join(f"{path}\n" for path in paths), "refine.sh": run}
    scripts |= {name: text.format(**words) for name, text in _SYSTEMS[system].items()}
    for name in ("inputs.txt", "refine.sh"):  # what the request is, and for whom
        _check_same(folder / name, scripts[name])
    for name, text in scripts.items():
        if (folder / name).exists():
            continue
        write_text(folder / name, text, overwrite=False)
        if name.endswith(".sh"):
            (folder / name).chmod(0o755)
    return folder / "submit.sh"


def _check_same(path: Path, text: str) -> None:
    try:
        same = not path.exists() or path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"cannot read {path}: {error}") from error
    if not same:
        raise OutputError(
            f"{path.parent} holds scripts of another request ({path.name} differs); choose another "
            "folder, or delete this one"
        )
