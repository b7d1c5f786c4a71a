"""Statistics of clustered rows and several seeds: intervals, agreement, rank correlations, buckets, calibration."""
