"""Tasks and where they come from: verified images, their split into tasks, batches, augmentation.

images.py loads a data set, split.py cuts it, task.py has what a task is. A new data set, or another
way to cut one, is a file in sequences/: docs/extending.rst. What a user brings is read by
archive.py, folder.py and function.py, and made a sequence by sequences/brought.py: docs/data.rst.
"""
