"""Parts of ``moe_caching.py``."""
