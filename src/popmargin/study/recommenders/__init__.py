"""Recommenders trained, measured and compared on one split of a file of events."""
