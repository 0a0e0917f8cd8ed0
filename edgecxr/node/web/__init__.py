"""The web page of a node; alone knows Jinja."""
