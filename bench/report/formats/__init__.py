"""How a `Sheet` looks as text, Markdown, LaTeX and HTML; one file each."""
