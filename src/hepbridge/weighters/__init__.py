"""Methods that answer with weights instead of moved events; one file each, one line here each."""

from hepbridge.core.registry import Registry

__all__ = ["WEIGHTERS"]

WEIGHTERS = Registry(
    "weighter",
    {
        "density_ratio": "hepbridge.weighters.density_ratio:DensityRatio",
    },
)
