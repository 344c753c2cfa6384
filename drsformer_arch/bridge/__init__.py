"""Everything that touches BasicSR's inside: making it importable, repairing it, starting its pipelines."""
