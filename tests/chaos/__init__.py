"""Processes killed at random moments, and what must hold of the files that they leave."""
