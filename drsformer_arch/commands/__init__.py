"""The subcommands of `drsformer`, one module each: what they are called with, and a call."""
