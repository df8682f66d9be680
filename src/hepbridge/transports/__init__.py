"""Learned maps; one file per method, one line here per method."""

from hepbridge.core.registry import Registry

__all__ = ["TRANSPORTS"]

TRANSPORTS = Registry(
    "transport",
    {
        "quantile": "hepbridge.transports.quantile:Quantile",
        "flow_matching": "hepbridge.transports.flow_matching:FlowMatching",
        "staged_flow": "hepbridge.transports.staged_flow:StagedFlow",
        "dsb": "hepbridge.transports.dsb:DSB",
        "distilled": "hepbridge.transports.distilled:Distilled",
        "mmd": "hepbridge.transports.mmd:MMD",
        "light_sb": "hepbridge.transports.light_sb:LightSB",
        "i2sb": "hepbridge.transports.i2sb:I2SB",
        "dsbm": "hepbridge.transports.dsbm:DSBM",
        "spline_flow": "hepbridge.transports.spline_flow:SplineFlow",
        "inverse_flow": "hepbridge.transports.inverse_flow:InverseFlow",
        "bayesian_flow": "hepbridge.transports.bayesian_flow:BayesianFlow",
        "diffusion": "hepbridge.transports.diffusion:Diffusion",
        "mean_flow": "hepbridge.transports.mean_flow:MeanFlow",
        "consistency": "hepbridge.transports.consistency:Consistency",
        "edm": "hepbridge.transports.edm:EDM",
    },
)
