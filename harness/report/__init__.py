"""Reports of results: text, HTML pages, pictures and scripts."""
