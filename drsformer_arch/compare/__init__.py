"""Several networks on the same data sets: quality, cost, tables and figures."""
