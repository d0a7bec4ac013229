"""Trials on a robot: a person judges policies blind, in a random order that is balanced block by block."""
