"""Marian's fast students: sentences → translations."""
