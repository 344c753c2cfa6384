"""Curves of trainings."""
