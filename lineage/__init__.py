"""Where every number came from: artifacts with digests, a content-checked store, recipes, and MLflow tracking."""
