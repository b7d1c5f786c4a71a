"""Triton kernels, apart from the code that is checked while tests run: a kernel is compiled from its source."""
