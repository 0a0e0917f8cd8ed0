"""From films to predictions, and from predictions to what people, programs and a PACS get."""
