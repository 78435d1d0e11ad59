"""Surface normals."""
