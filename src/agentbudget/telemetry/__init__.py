"""Trace events for other systems: readers only, told as `Governor(sinks=[...])`."""
