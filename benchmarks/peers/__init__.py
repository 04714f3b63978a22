"""What people use now: run by the Python that has torch and its packages."""
