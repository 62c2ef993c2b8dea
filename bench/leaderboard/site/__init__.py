"""The leaderboard as a folder of web pages that need nothing but a browser."""
