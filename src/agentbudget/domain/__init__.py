"""Frozen values and ports. Standard library only: no clock, no I/O, no randomness, no float money."""
