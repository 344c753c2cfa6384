"""A network from outside drsformer_arch, announced to it by an entry point (pyproject.toml)."""
