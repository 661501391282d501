"""The pages, one noun a file: views that read values of the store and give a template its words."""
