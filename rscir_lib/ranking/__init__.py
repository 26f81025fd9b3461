"""Ranks and best images of any number of questions to an archive of any size."""
