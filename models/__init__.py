"""Teachers and students by name; the only package that builds a model."""
