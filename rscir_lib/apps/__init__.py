"""What people start: explorer, labelling, course and book, commands."""
