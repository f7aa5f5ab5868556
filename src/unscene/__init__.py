"""Unsupervised scene decomposition."""
