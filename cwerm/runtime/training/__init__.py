"""Work of Ray Train: ranks that train together, how they meet, and what they save."""
