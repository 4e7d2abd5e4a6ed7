"""Vision transformers: images → labels, vectors, objects, attention maps; images beside texts."""
