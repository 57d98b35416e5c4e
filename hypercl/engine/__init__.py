"""What makes a step fast and exact, and knows nothing of methods, networks or tasks.

Members (seeds in one step), matrix products, optimizers, schedules, CUDA graphs, streams of random
numbers, groups of seeds that fit into memory.
"""
