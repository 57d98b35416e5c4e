"""Commands that measure, ``python -m benchmarks.<name>``, and what they found, in results/."""
