"""``hepbridge export``: a model as an ONNX file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["export"]


def export(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(help="Shipped model, or file (its name holds a / or ends in .safetensors)."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The .onnx file; .json goes beside it."
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Where it will run: ort, ort-1.16, ort-1.8, sofie; for generators par04, ddml-grid too.",
        ),
    ] = "ort",
    member: Annotated[int, typer.Option(min=0, help="Which member of an ensemble.")] = 0,
    timing: Annotated[
        bool, typer.Option("--timing", help="Also time the file and torch, on one core.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the outputs if they exist.")
    ] = False,
) -> None:
    """Write a refiner or a generator as ONNX with a contract beside it, checked against torch."""
    from hepbridge.systems.generation.model_file import is_generator
    from hepbridge.systems.model_file import locate

    if is_generator(locate(model)):
        record, words = _generator(model, output, target, member, timing, overwrite)
    else:
        record, words = _refiner(model, output, target, member, timing, overwrite)
    ctx.obj.result(record, "\n".join(words))


_Result = tuple[dict[str, Any], list[str]]


def _refiner(
    model: str, output: Path, target: str, member: int, timing: bool, overwrite: bool
) -> _Result:
    from hepbridge.deploy.onnx.export import export_onnx
    from hepbridge.systems.model_file import load

    loaded = load(model)
    contract, found = export_onnx(loaded, output, target=target, member=member, overwrite=overwrite)
    record, words = _written(output, contract, found)
    if timing:
        from hepbridge.deploy.onnx.timing import overhead, timings

        record["timing"] = timings(loaded, member, str(output), contract)
        record["overhead_us"] = overhead(loaded, str(output))
        words += _spans(record["timing"])
        words.append(f"a call of OnnxRefiner adds {record['overhead_us']:.0f} to that")
    return record, words


def _generator(
    model: str, output: Path, target: str, member: int, timing: bool, overwrite: bool
) -> _Result:
    from hepbridge.core.errors import ConfigError
    from hepbridge.deploy.onnx.generator_export import export_generator
    from hepbridge.systems.generation.model_file import load_generator

    if member:
        raise ConfigError(f"a generator has no members; leave out --member {member}")
    loaded = load_generator(model)
    contract, found = export_generator(loaded, output, target=target, overwrite=overwrite)
    record, words = _written(output, contract, found)
    if contract.settings:
        words += [f"for {contract.host}:", *(f"  {line}" for line in contract.settings)]
    if timing:
        from hepbridge.deploy.onnx.timing import generator_timings

        record["timing"] = generator_timings(loaded, str(output), contract)
        words += _spans(record["timing"])
    return record, words


def _written(output: Path, contract: Any, found: Any) -> _Result:
    from hepbridge.deploy.onnx.contract import contract_path

    words = [
        f"wrote {output} and {contract_path(output)} for {contract.minimum_runtime} or newer",
        f"agrees with torch: cells within {found.worst:.1e} of the shower's energy, energy sums "
        f"within {found.worst_sum:.1e} ({found.showers} showers, {found.runtime})",
    ]
    record: dict[str, Any] = {
        "output": output,
        "contract": contract.model_dump(mode="json"),
        "agreement": found.to_dict(),
    }
    return record, words


_NAMES = {
    "onnxruntime": "ONNX Runtime",
    "unoptimised": "without its optimisations",
    "torch": "torch",
}


def _spans(rows: list[dict[str, Any]]) -> list[str]:
    """What a timing found, in words."""
    words = ["microseconds per call on one core, median (5 % to 95 % quantile):"]
    for row in rows:
        kinds = [f"{name} {_span(row[kind])}" for kind, name in _NAMES.items() if kind in row]
        words.append(f"  {row['batch']:>6} showers: {', '.join(kinds)}")
    return words


def _span(time: dict[str, float]) -> str:
    return f"{time['median_us']:,.0f} ({time['p05_us']:,.0f} to {time['p95_us']:,.0f})"
