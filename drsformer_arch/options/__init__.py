"""Option files: read, checked, and made from recipes."""
