"""Fast forms of the networks: the same functions of the same parameters, computed faster.

Nothing here needs to be read to understand or to change a network: archs/ says what is computed. Each file is one
technique, and begins with what it replaces, why that is equal and what it gains.
"""

from drsformer_arch.fast.switching import (
    ACCELERATED,
    OWN_NETWORKS,
    accelerate,
    dtype_of,
    form_and_exceptions,
    form_of,
    fuse,
    has_fast_form,
    plain,
)

__all__ = [
    "ACCELERATED",
    "OWN_NETWORKS",
    "accelerate",
    "dtype_of",
    "form_and_exceptions",
    "form_of",
    "fuse",
    "has_fast_form",
    "plain",
]
