"""What knows nothing of images: where the project lies, files that stand whole, worker processes."""
