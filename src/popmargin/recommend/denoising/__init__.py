"""PreferDiff's model: a denoiser predicts the next item's vector from noise and the state of a history."""
