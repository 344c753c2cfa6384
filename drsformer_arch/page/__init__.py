"""One HTML file that shows results."""
