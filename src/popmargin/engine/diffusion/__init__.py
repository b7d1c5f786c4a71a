"""Diffusion: schedules, what models predict as errors, the noise of a pair, inversion. All functions are pure."""
