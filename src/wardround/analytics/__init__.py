"""Exact federated analyses: one file, one analysis, both halves. Pure."""
