"""The records that are compared: read, filtered, named and grouped by contender."""
