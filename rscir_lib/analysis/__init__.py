"""How sure a difference is, how to choose lambda, what a method gets wrong."""
