"""The search for the recipe that suits a model and labelled data."""
