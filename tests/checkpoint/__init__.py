"""Tests of bytes on disk."""
