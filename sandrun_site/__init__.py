"""Composes the rooms into one site and decides nothing."""
