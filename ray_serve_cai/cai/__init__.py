"""Cloudera AI: its API, and clusters made of its applications."""
