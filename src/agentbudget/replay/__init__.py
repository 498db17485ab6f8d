"""Recorded trajectories under other budgets, prices and models: what-if, repricing, calibration, import, comparison.

Reads traces and the faces of the core; nothing below imports it.
"""
