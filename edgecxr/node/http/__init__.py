"""HTTP for the web page and DICOMweb; alone knows uvicorn."""
