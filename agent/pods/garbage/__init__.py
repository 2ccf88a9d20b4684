"""What piles up on a machine and is cleared away: images, logs, dead containers, and traces of pods that are gone."""
