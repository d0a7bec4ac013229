"""Chunks that come late, at policy rate, to one smooth reference at control rate."""
