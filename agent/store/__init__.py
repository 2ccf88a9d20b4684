"""The durable record: one Store protocol and its backends."""
