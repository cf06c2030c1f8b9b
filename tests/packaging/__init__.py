"""lbcore as others get it: built, installed, imported, compiled against."""
