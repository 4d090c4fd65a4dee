"""Bringing images in: IDX files, and the photos, scans and arrays of users."""
