"""Forge studies the way an attacker would, so that the detector learns the traces of editing.

Knows pixels, lesion masks and chance (a `numpy.random.Generator` given by the caller). Must not know the network,
the archive or any file except in `study`, which writes forged DICOM. Families follow the literature on image
forgery (CT-GAN, arXiv 1901.03597; self-blended images, arXiv 2204.08376).
"""
