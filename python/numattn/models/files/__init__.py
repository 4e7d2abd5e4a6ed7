"""A model's folder: what its files hold, read and checked."""
