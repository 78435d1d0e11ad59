"""Config files: YAML, validated, every mistake at once."""
