"""Torch policy to deployment bundle, and the proof that both agree."""
