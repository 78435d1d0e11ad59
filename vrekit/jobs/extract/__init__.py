"""`vrekit extract`: frames of a dataset as files that any program opens."""
