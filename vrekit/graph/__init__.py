"""The DAG of a config: representations with their classes, output specs and codecs, in the order they compute."""
