"""What run.py can be asked for beside a run, a file each: --resume, --eval, --dry_run,
--continue_from, --compare, --export.

A command takes options or an experiment; what it needs of the scripts is handed to it.
"""
