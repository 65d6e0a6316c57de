"""Where tables come from: frames, files, databases."""
