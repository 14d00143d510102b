"""Artificial lesions on real brains: a task whose concepts are known."""
