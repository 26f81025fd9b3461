"""Composed queries with their relevant images, read from every format that is known, or drawn."""
