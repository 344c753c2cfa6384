"""BasicSR's data set classes, and the samples they give."""
