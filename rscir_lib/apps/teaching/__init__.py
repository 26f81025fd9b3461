"""The course and the book made of the notebooks."""
