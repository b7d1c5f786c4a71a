"""Rewards, which score responses: a function, a reward model, or a judge that rates."""
