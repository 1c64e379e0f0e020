"""Work on Ray: pools of workers, ranks, and what becomes of them."""
