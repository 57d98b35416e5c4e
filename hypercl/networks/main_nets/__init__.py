"""Main networks, the choices of --net_type: one module each, which is all that a new one takes.

A module defines ``ENTRY``, a :class:`~hypercl.networks.main_nets.base.MainNet`; its fields are
options. The command line imports it: torch and hypnettorch are for its ``build``. brought.py is for
modules of the user's, which are named by a reference.
"""
