"""Language models as judges: client, prompts, parsing of answers, verdicts."""
