"""Recommendation: sequences of items, how they are split and measured, baselines, and a denoiser of item vectors."""
