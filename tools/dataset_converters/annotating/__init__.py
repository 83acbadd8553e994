"""What the converters to COCO's format share."""
