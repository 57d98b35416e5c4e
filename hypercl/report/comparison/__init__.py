"""What --compare tells of several runs: the table, the statistics, figures and files.

rows.py has what is compared, statistics.py the tests, results.py both together; table.py and
figures.py show them, and files.py writes a report. A new figure is a function in figures.py, in its
table FIGURES. No torch.
"""
