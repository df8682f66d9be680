"""Invertible maps between physics space and model space; what they learn is part of the model file."""

from hepbridge.transforms.conditional_quantile import ConditionalQuantile
from hepbridge.transforms.shower_coordinates import from_coordinates, log_energy, to_coordinates

__all__ = ["ConditionalQuantile", "from_coordinates", "log_energy", "to_coordinates"]
