"""Small sources for importers: pipelines and weights."""
