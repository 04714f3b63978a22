"""The peers' side of each pair, for the Python with torch and its packages."""
