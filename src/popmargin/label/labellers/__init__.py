"""Labellers that are not people: ratings, rewards and judges label a store or pairs of preferences."""
