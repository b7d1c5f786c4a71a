"""Recipes: programs of stages, a file each."""
