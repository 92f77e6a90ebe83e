"""The configuration: frozen classes, one per section of `homeserver.yaml`, and how a file becomes them.

`sections.py` has the classes with their defaults, `loading.py` reads a file and names the line of a
mistake, `sample.py` writes a first file. A service is given the section it needs, never the whole.
"""
