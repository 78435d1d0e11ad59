"""Representation types, one file each, by kind. `base.py` holds the contract; `registry` maps type names to classes."""
