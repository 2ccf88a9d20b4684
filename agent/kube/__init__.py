"""The API server side: credentials, REST, list and watch, referenced objects, tokens and events."""
