"""What a gateway keeps on disk: one SQLite database, the bundles its baselines need, and the audio of enrollments."""
