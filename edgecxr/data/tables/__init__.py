"""What the tables of data sets say: cells, labels, splits, boxes, readers."""
