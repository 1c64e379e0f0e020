"""The stages of a run on Ray: each module has ``key(job, store)`` and ``run(job, store)``."""
