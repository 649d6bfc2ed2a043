"""Telling others of videos that ended."""
