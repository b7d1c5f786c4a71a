"""Language models as judges: the client of their servers, prompts, reading of their answers, verdicts."""
