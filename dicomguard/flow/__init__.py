"""The work on a study, step by step, so that a crash between any two of them costs nothing."""
