"""Data sets, loaders, LMDB and synthetic rain."""
