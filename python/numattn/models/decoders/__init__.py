"""Decoders of GPT-2's and Llama's families: token ids → logits, and texts made from them."""
