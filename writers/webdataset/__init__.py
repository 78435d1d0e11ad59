"""Everything that knows tar shards: WebDataset tars, each committed by the Parquet sidecar beside it."""
