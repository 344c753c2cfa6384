"""Which files belong together: rainy and clean, result and target."""
