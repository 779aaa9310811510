"""Side by side with other tools, each in an environment of its own."""
