"""How the open questions are shown, a module each of the same name as in `benchmarks/open_questions`."""
