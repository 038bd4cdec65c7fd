"""The engine on a cluster: a Ray Serve deployment. See ``README.md``."""
