"""Attention with the conventions of other libraries, each in a module of its own."""
