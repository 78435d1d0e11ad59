"""Imported by a test, to fail as a type does whose package is not installed."""

import absent_package  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]  # absent on purpose

X = absent_package
