"""Sources: what fills the `Directory`. One file each; a source knows nothing of who reads what it publishes."""
