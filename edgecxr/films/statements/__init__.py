"""What DICOM files state about view, region and intent."""
