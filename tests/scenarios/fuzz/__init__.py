"""Bad input of all kinds for every endpoint of a whole server in memory."""
