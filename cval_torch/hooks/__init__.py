"""How predictions leave an unmodified detector: a recorder of module outputs, and one adapter a family."""
