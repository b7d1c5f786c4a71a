"""The engine: batches, log-probs, reference cache and target margins; it knows no objective."""
