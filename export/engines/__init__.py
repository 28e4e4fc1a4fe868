"""Builders of the engines in a plan, one a kind."""
