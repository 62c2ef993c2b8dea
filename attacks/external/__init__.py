"""Attacks whose code is another library's; imported only when one of them runs."""
