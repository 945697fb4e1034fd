"""Audits: what a scorer does is tested, and where it was held is said."""
