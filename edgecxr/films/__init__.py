"""From a file to the pixels that models see: DICOM and pictures, for training and on the device alike."""
