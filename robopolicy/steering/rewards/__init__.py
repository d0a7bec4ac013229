"""Rewards of stored episodes: one file each."""
