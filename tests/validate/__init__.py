"""Simulations of what the statistics promise; `make validate` runs them."""
