"""Things around the package: the demo video and its ground truth, set-up, benchmarks. Not installed with vrekit."""
