"""Who is most robust: networks ranked by their worst case over attacks, within what can be compared."""
