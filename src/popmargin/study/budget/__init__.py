"""The budget question: what the next hour of an annotator buys, by simulation on human strengths."""
