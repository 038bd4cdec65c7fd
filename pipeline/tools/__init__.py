"""Running what the model asks for: exactly once, with permission, and with words for whatever came of it."""
