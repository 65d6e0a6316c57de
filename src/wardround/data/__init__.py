"""The data contract, its checks, and the sites' tables."""
