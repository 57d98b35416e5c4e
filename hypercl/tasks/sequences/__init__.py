"""Sequences of tasks, the choices of --cl_exp: one module each, which is all that a new one takes.

A module defines ``ENTRY``, a :class:`~hypercl.tasks.sequences.base.Sequence`; its fields are options.
The command line imports it: torch and the images are for its ``build``.
"""
