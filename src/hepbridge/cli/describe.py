"""What a file is: a record for ``--json``, and the same in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hepbridge.cli.samples import is_model
from hepbridge.core.units import GEV

__all__ = ["describe", "words"]

_CHUNK = 20_000
_WIDE = 200  # characters of a value
_FEW = 10  # up to so many distinct incident energies are listed one by one


def describe(name: str) -> dict[str, Any]:
    """A record of what the file or the model ``name`` is."""
    from hepbridge.cli.tables import bundled_events

    if (bundled := bundled_events(Path(name))) is not None:
        name = str(bundled)
    if is_model(name):
        from hepbridge.systems.unfolding.model_file import is_unfolding_model, load_unfolding

        if is_unfolding_model(name):
            return {"name": name, **load_unfolding(name).describe()}
        from hepbridge.systems.generation.model_file import is_generator, load_generator

        if is_generator(name):
            return {"name": name, **load_generator(name).describe()}
        from hepbridge.systems.model_file import load, locate

        return {"name": name, **load(locate(name)).describe()}
    from hepbridge.cli import describe_events
    from hepbridge.data.formats.points import is_points
    from hepbridge.data.formats.tables import is_tables

    if is_tables(name):
        return describe_events.tables(Path(name))
    if is_points(name):
        return describe_events.points(Path(name))
    if describe_events.is_foreign(Path(name)):
        return describe_events.tables(Path(name))
    return _showers(Path(name))


def _showers(path: Path) -> dict[str, Any]:
    """Statistics of a shower file, read in pieces so that its size does not matter."""
    import numpy as np

    from hepbridge.data import io

    ratio, filled, empty, largest = 0.0, 0, 0, 0.0
    uids: set[int] = set()
    with io.open_reader(path, allow_empty_showers=True) as reader:
        energy = reader.incident_energy / GEV
        for part in reader.blocks(_CHUNK):
            ratio += float((part.e_sum / part.incident_energy).sum())
            filled += int(np.count_nonzero(part.cells))
            empty += int((part.e_sum == 0).sum())
            largest = max(largest, float(part.cells.max()) / GEV)
            uids.update(int(uid) for uid in np.unique(part.event_ids[:, 0]))
        n, geometry, provenance, manifest = (
            len(reader),
            reader.geometry,
            reader.meta,
            reader.manifest,
        )
    distinct = np.unique(energy)
    return {
        "kind": "showers",
        "name": str(path),
        "showers": n,
        "incident_energy_gev": {
            "min": float(distinct[0]),
            "max": float(distinct[-1]),
            "values": [float(v) for v in distinct] if len(distinct) <= _FEW else None,
        },
        "conditions": [*part.conditions],
        "geometry": geometry.to_dict(),
        "cells": {
            "filled_fraction": filled / (n * geometry.n_cells),
            "largest_gev": largest,
            "mean_e_sum_over_incident": ratio / n,
        },
        "event_uids": sorted(f"{uid:016x}" for uid in uids),
        "empty_showers": empty,
        "provenance": dict(provenance),
        "made_by": manifest,
    }


def words(record: Mapping[str, Any]) -> str:
    """The record for a person to read."""
    known = {
        "showers": _shower_words,
        "tables": _table_words,
        "points": _point_words,
        "unfolding": _unfolding_words,
        "generator": _generator_words,
    }
    return known.get(record["kind"], _model_words)(record)


def _unfolding_words(record: Mapping[str, Any]) -> str:
    found, names = record["response"], record["observables"]
    method = "weights of simulated events (OmniFold)"
    if record["transport"]:
        method = (
            f"truths of measured events, transport {record['transport']}, "
            f"{record['network_evaluations']} network evaluations"
        )
    units = ", ".join(n if u == "1" else f"{n} [{u}]" for n, u in names["units"].items())
    steps = record["iterations"]
    return "\n".join(
        [
            f"{record['name']}: a hepbridge model of an unfolding",
            f"  answers with     {method}: {record['parameters']:,} parameters",
            f"  observables      {units}",
            f"  response         {found['pairs']:,} pairs, {found['misses']:,} misses, "
            f"{found['fakes']:,} fakes",
            f"  prior            {f'iterated {len(steps)} times' if steps else 'not iterated'}",
            f"  made             {record['provenance']['date']}, hepbridge "
            f"{record['provenance']['versions']['hepbridge']}",
        ]
    )


def _generator_words(record: Mapping[str, Any]) -> str:
    steps = [f"{name} by {record[name]}" for name in ("layers", "cells") if record[name]]
    lines = [
        f"{record['name']}: a hepbridge generator",
        f"  draws            {', '.join(steps) or 'every coordinate by itself'}; frame "
        f"{record['frame']}: {record['parameters']:,} parameters, {record['network_evaluations']} "
        "network evaluations per shower",
        *_domain_words(record),
        *_history_words(record, "training_showers"),
    ]
    return "\n".join([*lines, *_blocks({"trained on": record["domain"]["full"]})])


def _model_words(record: Mapping[str, Any]) -> str:
    domain = record["domain"]
    ensemble = f", an ensemble of {record['members']}" if record["members"] > 1 else ""
    lines = [
        f"{record['name']}: a hepbridge model{ensemble}",
        f"  system           {record['system']}, transport {record['transport'] or 'none'}: "
        f"{record['parameters']:,} parameters, {record['network_evaluations']} network evaluations "
        "per shower",
        *_domain_words(record),
        *_history_words(record, "training_pairs"),
    ]
    blocks = {"trained on, fast": domain["fast"], "trained on, full": domain["full"]}
    return "\n".join([*lines, *_blocks(blocks)])


def _domain_words(record: Mapping[str, Any]) -> list[str]:
    """Where a model may be used."""
    domain = record["domain"]
    low, high = (energy / GEV for energy in domain["incident_energy_mev"])
    return [
        f"  valid for        incident energy {low:.4g} to {high:.4g} GeV, "
        f"particle {domain['particle']}",
        *(
            f"                   {name} {span[0]:.4g} to {span[1]:.4g}"
            for name, span in domain.get("conditions", {}).items()
        ),
        _geometry_words(record["geometry"]),
    ]


def _history_words(record: Mapping[str, Any], count: str) -> list[str]:
    """How a model was made, from as many samples as its entry ``count`` says, and how good it is."""
    lines, made, metrics = [], record["provenance"], record["metrics"]
    if {"versions", "date", count, "training_seconds", "request"} <= made.keys():
        versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
        lines.append(
            f"  made             {made['date']}, {made[count]:,} {count.replace('_', ' ')}, "
            f"{made['training_seconds']:.0f} s, seed {made['request']['seed']} ({versions})"
        )
    if {"n", "distance"} <= metrics.keys():
        distances = ", ".join(f"{name} {value:.4f}" for name, value in metrics["distance"].items())
        lines.append(
            f"  held out         {metrics['n']:,} showers, distance to full, no floor: {distances}"
        )
    return lines


def _geometry_words(geometry: Mapping[str, Any]) -> str:
    shape = "×".join(str(n) for n in geometry["shape"])
    return (
        f"  geometry         {geometry['name']}: {shape} cells ({', '.join(geometry['axes'])}), "
        f"symmetry {geometry['symmetry']}"
    )


def _shower_words(record: Mapping[str, Any]) -> str:
    energy, cells = record["incident_energy_gev"], record["cells"]
    if energy["values"] is None:
        energies = f"{energy['min']:.4g} to {energy['max']:.4g} GeV"
    else:
        energies = ", ".join(f"{v:.4g}" for v in energy["values"]) + " GeV"
    lines = [
        f"{record['name']}: {record['showers']:,} showers",
        f"  incident energy  {energies}",
        f"  conditions       {', '.join(record['conditions'])}",
        _geometry_words(record["geometry"]),
        f"  cells            {100 * cells['filled_fraction']:.1f} % filled, largest "
        f"{cells['largest_gev']:.3g} GeV, mean energy sum {cells['mean_e_sum_over_incident']:.4f} "
        "of the incident energy",
        f"  event ids        data set {', '.join(record['event_uids'])}",
    ]
    if record["empty_showers"]:
        lines.append(
            f"  warning          {record['empty_showers']:,} showers have no energy at all"
        )
    blocks = {"provenance": record["provenance"], "made by": record["made_by"]}
    return "\n".join([*lines, *_blocks(blocks)])


def _table_words(record: Mapping[str, Any]) -> str:
    lines = [f"{record['name']}: {', '.join(record['tables'])}"]
    for name, table in record["tables"].items():
        weighted = ", weighted" if table["weighted"] else ""
        lines.append(f"  {name}: {table['rows']:,} rows{weighted}")
        for column, found in table["columns"].items():
            unit = "" if found["unit"] == "1" else f" {found['unit']}"
            there = table["rows"] - found["undefined"]
            value = f"{found['mean']:.4g} ± {found['std']:.3g}{unit}" if there else "–"
            lines.append(f"    {column:<16} {value}, {there:,} defined")
        lines += [f"    {flag:<16} {n:,} set" for flag, n in table["flags"].items()]
    blocks = {"provenance": record["provenance"], "made by": record["made_by"]}
    return "\n".join([*lines, *_blocks(blocks)])


def _point_words(record: Mapping[str, Any]) -> str:
    energy = record["incident_energy_gev"]
    return (
        f"{record['name']}: {record['showers']:,} showers of points\n"
        f"  incident energy  {energy['min']:.4g} to {energy['max']:.4g} GeV\n"
        f"  points           {record['points_per_shower']:.1f} per shower"
    )


def _blocks(blocks: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Titled blocks; those without content are left out."""
    lines = []
    for title, block in blocks.items():
        if block:
            lines += [f"  {title}", *_indented(block, "    ")]
    return lines


def _indented(block: Mapping[str, Any], indent: str) -> list[str]:
    """``name: value`` lines; blocks inside blocks are indented further, long values are cut."""
    lines = []
    for name, value in block.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}:", *_indented(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {_short(value)}")
    return lines


def _short(value: Any) -> str:
    """In one line: a whole detector would hide the rest."""
    if isinstance(value, (list, tuple)):
        if any(isinstance(v, Mapping) for v in value):
            return f"{len(value)} entries (--json shows them)"
        return _short(", ".join(str(v) for v in value))
    lines = str(value).splitlines()
    if len(lines) > 1:
        return f"{len(lines)} lines (--json shows them)"
    text = str(value)
    return text if len(text) <= _WIDE else f"{text[:_WIDE].rsplit(' ', 1)[0]} … (--json shows all)"
