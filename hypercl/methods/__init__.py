"""Methods against forgetting, the choices of --method: one module or folder each.

A module defines ``ENTRY``, a :class:`~hypercl.methods.base.MethodEntry`, whose fields are options and
whose ``build`` returns a :class:`~hypercl.methods.base.Method`. The command line imports it, so torch
is imported in functions, or in a second file of a folder as ``hnet`` has it.
"""
