"""What a run tells: results.json and its metrics, the screen, plots, TensorBoard.

A new metric is a function in metrics.py, in its table METRICS; a new figure one in plots.py.
comparison/ has what several runs tell beside each other.
"""
