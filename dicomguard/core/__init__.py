"""Values and decisions. Standard library only: no file, socket, clock, chance or log."""
