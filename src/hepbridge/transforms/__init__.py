"""Invertible maps between physics space and model space; what they learn is part of the model file."""

from hepbridge.transforms.conditional_quantile import ConditionalQuantile
from hepbridge.transforms.marginals import matched
from hepbridge.transforms.shower_coordinates import ShowerCoordinates, log_energy

__all__ = ["ConditionalQuantile", "ShowerCoordinates", "log_energy", "matched"]
