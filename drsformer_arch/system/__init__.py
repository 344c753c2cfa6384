"""The ground of everything: errors, whole files, names, archives, the terminal, processes and the processor."""
