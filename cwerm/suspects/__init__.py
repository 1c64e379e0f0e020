"""Labels that look wrong, for people: a list, a contact sheet and a page; and near-duplicates."""
