"""What the command line shares: options, the config, the user's mistakes."""
