"""The trace: events, their JSON Lines on disk, and the numbers folded from them."""
