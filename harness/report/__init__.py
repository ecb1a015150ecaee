"""What was found, as text, pages, pictures and scripts."""
