"""Everything that knows Lance tables."""
