"""Logs of containers, shipped to a server or a file: at least once, in order, over outages and restarts.

Loaded when the first pod has a sink.
"""

PREFIX = "log-cursors/"
"""Rows of the record, by pod UID: where its log goes, and how far it is there."""
