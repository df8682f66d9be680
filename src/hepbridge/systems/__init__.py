"""The published systems: thin compositions of transforms, transports and networks."""

from hepbridge.core.registry import Registry

__all__ = ["SYSTEMS"]

SYSTEMS = Registry(
    "system",
    {
        "squirels": "hepbridge.systems.squirels:Squirels",
        "squirels_paper": "hepbridge.systems.squirels_paper:SquirelsPaper",
    },
)
