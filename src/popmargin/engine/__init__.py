"""The engine: batches, log-probs, reference cache and target margins. It knows nothing of objectives."""
