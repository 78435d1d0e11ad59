"""`transcode`: from a dataset to one with other codecs."""
