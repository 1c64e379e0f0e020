"""What jobs would make, before anything is made: no Ray, no image decoded, nothing written."""
