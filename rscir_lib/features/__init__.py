"""Features of an archive: extracted, stored with their provenance, read again."""

from rscir_lib.features.extraction import extract_features
from rscir_lib.features.features import Features, read_features, verify_features

__all__ = ["Features", "extract_features", "read_features", "verify_features"]
