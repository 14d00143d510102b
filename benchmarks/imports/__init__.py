"""Whole networks from elsewhere: imported, compared, visualized."""
