"""Images that are on the machine before a pod needs them: pulled ahead, or brought in files; and kept."""
