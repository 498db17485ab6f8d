"""The governor: decides, reserves, settles and emits; knows no framework."""
