"""Values every other package speaks: frames, keys, specs, schemas, errors, registries. Imports nothing of ours."""
