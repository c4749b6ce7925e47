"""One model behind each system: the same work for all of them."""
