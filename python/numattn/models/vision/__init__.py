"""Vision transformers: images → labels, vectors and attention maps; images beside texts."""
