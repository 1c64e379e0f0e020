"""Where things lie: folders and buckets, artifacts and their manifests, the schemas of tables."""
