"""Classifiers on a denoiser's frozen features: linear ones at many cells (t, block), and nearest neighbours."""
