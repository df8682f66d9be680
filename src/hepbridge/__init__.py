"""hepbridge: learned maps between distributions of particle-physics data."""

__version__ = "0.1.0"
