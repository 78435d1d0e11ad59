"""Plan, pipeline and resume: what `vrekit export` runs."""
