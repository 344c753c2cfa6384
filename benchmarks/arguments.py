"""Types of the benchmark scripts' arguments."""

import argparse


def positive(text: str) -> int:
    """Read a whole number of at least 1; argparse shows the message."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is expected, not {text}")
    return value
