"""The audit of a model: from a plan to a report. Needs the extra `audit`.

The log of what callers did is another matter: see `neurofv.audit_log`.
"""
