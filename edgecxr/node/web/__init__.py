"""The web page of a node; alone knows starlette, uvicorn and Jinja."""
