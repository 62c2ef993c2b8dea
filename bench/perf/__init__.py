"""How fast: our attack steps, table rows and training beside other libraries', as ratios measured on this machine."""
