"""Scores of result pictures against their targets."""
