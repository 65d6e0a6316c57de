"""Hospitals learn from all of their patients together while no patient's record leaves its hospital."""
