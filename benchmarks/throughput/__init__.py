"""Parts of ``window_throughput.py``."""
