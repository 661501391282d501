"""Sealed families of forgery: written apart from the others, made only by `evaluate --sealed`, never trained on."""
