"""Continual learning with hypernetworks: what run.py, train.py and train_args.py stand on."""
