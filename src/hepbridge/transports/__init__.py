"""Learned maps; one file per method, one line here per method."""

from hepbridge.core.registry import Registry

__all__ = ["TRANSPORTS"]

TRANSPORTS = Registry(
    "transport",
    {
        "quantile": "hepbridge.transports.quantile:Quantile",
        "flow_matching": "hepbridge.transports.flow_matching:FlowMatching",
        "dsb": "hepbridge.transports.dsb:DSB",
    },
)
