"""Pictures for training and testing: paired, prepared, stored, and given out by data sets."""
