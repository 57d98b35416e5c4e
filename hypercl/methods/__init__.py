"""Methods against forgetting, the choices of --method: one module or folder each.

A module defines ``ENTRY``, a :class:`~hypercl.methods.base.MethodEntry`: its fields are options,
its ``build`` returns a :class:`~hypercl.methods.base.Method`. The command line imports it, so torch
is imported in functions, or in a second file of a folder, as ``hnet`` has it. docs/extending.rst
adds one.
"""
