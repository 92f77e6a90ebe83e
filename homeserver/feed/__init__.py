"""The tail of the feed in memory: what every cache and every waiting client of this process follows."""
