"""The engine: packing without padding, the fast layers, the one training loop, checkpoints and generation.

A model is made ready once (`prepare.prepare`); then everything that runs it, training, scoring and generation alike,
hands it the same shape, a `packing.PackedBatch`, through `forward`.
"""
