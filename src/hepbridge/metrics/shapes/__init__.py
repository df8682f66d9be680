"""Showers of any calorimeter, and point clouds: what is kept of each, and the rows of its table."""
