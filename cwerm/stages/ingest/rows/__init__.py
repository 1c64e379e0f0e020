"""What ingest knows of single rows: held in memory where they are few, else in the storage."""
