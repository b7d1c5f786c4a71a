"""Baselines of recommendation, one file each."""
