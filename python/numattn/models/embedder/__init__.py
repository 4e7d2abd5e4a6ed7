"""Embedders: decoders' layers, whose states become vectors of texts."""
