"""Composed image retrieval for remote sensing: the thin library behind the notebooks.

images -> archive -> encoders -> features -> composition -> evaluation -> plots
"""
