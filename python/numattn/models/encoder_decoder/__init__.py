"""Encoder–decoders of transformers' kind: text, or speech, to text."""
