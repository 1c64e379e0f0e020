"""The Ray session of a run: one of its own, or a cluster that it joins."""
