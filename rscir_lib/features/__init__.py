"""Features of an archive: extracted, stored with their provenance, read again."""

from rscir_lib.features.features import Features, extract_features, read_features

__all__ = ["Features", "extract_features", "read_features"]
