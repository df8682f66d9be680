"""Samplers of diffusion models; one file per family, one line here per sampler."""

from hepbridge.core.registry import Registry

__all__ = ["SAMPLERS"]

SAMPLERS = Registry(
    "sampler",
    {
        "euler": "hepbridge.transports.samplers.ddim:EULER",
        "ddpm": "hepbridge.transports.samplers.ddim:DDPM",
        "euler_maruyama": "hepbridge.transports.samplers.euler_maruyama:EULER_MARUYAMA",
        "heun": "hepbridge.transports.samplers.heun:HEUN",
        "edm": "hepbridge.transports.samplers.heun:EDM",
        "restart": "hepbridge.transports.samplers.restart:RESTART",
        "dpmpp_2m": "hepbridge.transports.samplers.dpm_solver:DPMPP_2M",
        "dpmpp_2m_sde": "hepbridge.transports.samplers.dpm_solver:DPMPP_2M_SDE",
        "lms2": "hepbridge.transports.samplers.lms:LMS2",
        "lms3": "hepbridge.transports.samplers.lms:LMS3",
        "lms4": "hepbridge.transports.samplers.lms:LMS4",
        "unipc2": "hepbridge.transports.samplers.unipc:UNIPC2",
        "unipc3": "hepbridge.transports.samplers.unipc:UNIPC3",
    },
)
