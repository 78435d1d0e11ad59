"""Values computed elsewhere: files by frame number, tables by time."""
