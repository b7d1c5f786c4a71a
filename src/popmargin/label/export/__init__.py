"""Exports from the store: PoP edges and preferences with votes, ratings and strengths."""
