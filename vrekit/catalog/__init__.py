"""The dataset directory: manifest, runs, columnar metadata."""
