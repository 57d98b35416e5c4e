"""What a sweep has found: sweep.csv, best.toml, and a report like that of --compare.

points.py collects it from the journal and the run directories, tables.py and figures.py show it,
and files.py writes it. A new figure is a function in figures.py, in its table FIGURES. No torch;
Optuna is asked for the importance of options alone.
"""
