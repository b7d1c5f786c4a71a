"""Labelling: a store of items, assignments and answers, with tools that fill and read it."""
