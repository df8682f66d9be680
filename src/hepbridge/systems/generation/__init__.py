"""Showers from noise: a frame of layer energies and cells, and transports that fill it."""
