"""Worker processes: one process builds what clients are sent, several carry the streams on one port."""
