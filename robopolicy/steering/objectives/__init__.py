"""Losses of critics: one file each."""
