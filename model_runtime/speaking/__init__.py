"""The speaking half: audio codes and a voice to a waveform (token2wav), whole or as a stream."""
