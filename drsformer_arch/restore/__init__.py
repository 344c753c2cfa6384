"""Restoring pictures: value range, padding, tiles, weights."""
