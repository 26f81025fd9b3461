"""Similarities of queries to an archive, and the scales that they are put on."""
