"""From dataset to dataset, and what keeps a dataset well: merge, transcode, validate, repair, collect garbage."""
