"""Parts of ``benchmarks/mode_coverage.py``."""
