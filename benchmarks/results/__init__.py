"""Results: measurements kept as JSON, and the tables in Markdown that are rendered from them.

python -m benchmarks.results run quality --data DIR     # measure, write benchmarks/results/quality.json
python -m benchmarks.results fill                       # render the tables of README.md and docs
python -m benchmarks.results check                      # list what is stale, edited by hand or without a source
"""
