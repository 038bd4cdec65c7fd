"""The voice library: a folder of voices beyond a checkpoint's own, and all that is done to it."""
