"""Triton kernels, kept apart from code that is type-checked while tests run: kernels are compiled from source."""
