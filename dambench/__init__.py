"""dambench: a terminal console for benchmarking dataset distillation."""

__version__ = "0.1.0"
