"""Small networks that fill a hole in a slice, for learned forgeries; torch lives here, forgers come in lazily."""
