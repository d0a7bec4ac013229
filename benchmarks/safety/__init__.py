"""Parts of benchmarks/safety_fuzz.py."""
