"""Results as tables in Markdown: a module beside each benchmark, with a function for every table in `TABLES`."""
