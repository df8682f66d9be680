"""Z + jet events at particle level and after a fast detector: the data of an unfolding study.

`generator` makes events with Pythia, `propagation`, `tracker` and `calorimeter` are a detector after
a CMS card of Delphes, `jets` clusters and measures, `produce` writes the file.
"""
