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
        typer.Option(metavar="NAME", help="Where it will run: ort, ort-1.16, ort-1.8 or sofie."),
    ] = "ort",
    member: Annotated[int, typer.Option(min=0, help="Which member of an ensemble.")] = 0,
    timing: Annotated[
        bool, typer.Option("--timing", help="Also time the file and torch, on one core.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the outputs if they exist.")
    ] = False,
) -> None:
    """Write a model as ONNX with a contract beside it, checked against torch."""
    from hepbridge.deploy.onnx.contract import contract_path
    from hepbridge.deploy.onnx.export import export_onnx
    from hepbridge.systems.model_file import load

    loaded = load(model)
    contract, found = export_onnx(loaded, output, target=target, member=member, overwrite=overwrite)
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
    if timing:
        from hepbridge.deploy.onnx.timing import overhead, timings

        record["timing"] = timings(loaded, member, str(output), contract)
        record["overhead_us"] = overhead(loaded, str(output))
        words.append("microseconds per call on one core, median (5 % to 95 % quantile):")
        words += [
            f"  {row['batch']:>6} showers: ONNX Runtime {_span(row['onnxruntime'])}, "
            f"torch {_span(row['torch'])}"
            for row in record["timing"]
        ]
        words.append(f"a call of OnnxRefiner adds {record['overhead_us']:.0f} to that")
    ctx.obj.result(record, "\n".join(words))


def _span(time: dict[str, float]) -> str:
    return f"{time['median_us']:,.0f} ({time['p05_us']:,.0f} to {time['p95_us']:,.0f})"
