"""Synthetic rain: its looks, its drawing, and its statistics."""
