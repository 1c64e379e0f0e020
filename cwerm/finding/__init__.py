"""Finding wrong labels in a folder of images, with nothing but the folder."""
