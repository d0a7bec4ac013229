"""Shared by ``evaluation_throughput.py`` and ``evaluation_determinism.py``."""
