"""Stores and LMDBs: many pictures in few files, read by the patch."""
