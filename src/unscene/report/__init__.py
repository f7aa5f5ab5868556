"""Figures, tables and pages of numbers and decompositions that other rooms compute."""
