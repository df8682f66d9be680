"""Options that several commands of ``hepbridge unfold`` have."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["DataWeights", "Overwrite", "Prefixes", "Seed", "Tables", "Units", "Weights"]

Units = Annotated[
    list[str] | None,
    typer.Option(
        "--unit",
        metavar="COLUMN=UNIT",
        help="Unit of a column in a file that does not say; repeat.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Weights of simulated events, in files that do not say."),
]
DataWeights = Annotated[
    str | None,
    typer.Option(
        "--data-weights",
        metavar="COLUMN",
        help="Weights of measured events, in files that do not say.",
    ),
]
Prefixes = Annotated[
    str | None,
    typer.Option(
        metavar="P,D",
        help="How columns of particle and detector level begin, if both are in one table: "
        "gen_,reco_.",
    ),
]
Tables = Annotated[
    str,
    typer.Option(metavar="P,D", help="Names of the tables of particle and detector level."),
]
Seed = Annotated[int, typer.Option(help="Seed of all randomness.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
