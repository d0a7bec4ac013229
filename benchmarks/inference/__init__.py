"""Parts of ``inference_latency.py``."""
