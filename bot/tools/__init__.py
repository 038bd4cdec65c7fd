"""The tools an agent can be given.

A tool is a Python function (``function.py``); ``registry.py`` knows the shipped ones by name, ``toolbox.py``
makes an agent's ready for calls. How they are run is ``pipeline.tools``'s affair.
"""
