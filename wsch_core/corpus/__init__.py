"""Codes of more videos than one data set holds: encoded file by file, searched by many workers or in a database."""
