"""What an agent can look up: documents taken apart into passages, kept in a file, found by words and by
meaning.

It belongs to the bot and not to the pipeline: a call knows a tool that answers in text, and nothing of
documents.
"""
