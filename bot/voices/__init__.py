"""The voice library as a person meets it: ``parley voices``, and finding a voice by what is said of it."""
