"""What a run tells: results.json and its metrics, the screen, plots, TensorBoard.

A new metric is a function in metrics.py, in its table METRICS; a new figure is a function in
plots.py, which drawing.py calls and drawer.py has called in a process of its own.
comparison/ has what several runs tell beside each other.
"""
