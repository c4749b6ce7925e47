"""`gpuwarden simulate`: the guard's policies against the simulated card, on a virtual clock."""
