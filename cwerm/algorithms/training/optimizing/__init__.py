"""How parameters change: the optimizer, its rate at each step, and what is made of the steps."""
