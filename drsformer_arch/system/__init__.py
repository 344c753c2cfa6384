"""What everything stands on: errors, whole files, names, archives, the terminal, processes and the processor."""
