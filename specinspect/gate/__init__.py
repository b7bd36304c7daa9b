"""The gate: a report against limits. Plain data in, findings out; one renderer per format."""
