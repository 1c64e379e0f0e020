"""Wrong labels as people and machines make them, for studies; the standard kinds are in `corrupt`.

- `instance`: the labels that a weak classifier would confuse, at exactly the asked rate;
- `confusion`: a table of which class is taken for which, by class names;
- `open_set`: images of another source under the labels of this one.

All draw by seed alone, and none counts a label that stays what it was.
"""
