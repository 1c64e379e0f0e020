"""Files below a local folder or an ``s3://`` prefix: what lies there, its digests, and reading it."""
