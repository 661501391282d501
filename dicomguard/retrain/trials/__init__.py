"""Trials of the recipe, not of the shipped weights: short trainings with something taken away, judged side by side.

Each is a command of its own (`python -m dicomguard.retrain.trials.…`) that goes on where it was interrupted. Knows the
training and the figures of the evaluation; patients of validation are judged unless the test ones are asked for.
"""
