"""The run directory: what a run leaves, and how it goes on after any end.

directory.py writes every file whole or not at all, saving.py seals files of tensors, checkpoint.py
says where a run is, provenance.py says what made it. The lock is hypercl/lock.py.
"""
