"""Faces, with and without padding."""
