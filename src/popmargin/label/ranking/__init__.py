"""Best and worst of several responses from pairwise comparisons."""
