"""Jobs sent to a cluster, with the files that go along."""
