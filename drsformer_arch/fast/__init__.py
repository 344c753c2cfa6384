"""Fast forms of the networks in archs/."""
