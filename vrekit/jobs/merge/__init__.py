"""Several datasets become one: what `vrekit merge` and `vrekit convert` run."""
