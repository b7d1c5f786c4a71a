"""Labelling: a store of items, assignments and answers, and what fills and reads it."""
