"""Labellers that are no people: ratings, reward models and judges, with the same verdicts as people give."""
