"""The words of the annotators' pages: a file for each language."""
