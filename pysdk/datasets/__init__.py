"""Images and labels from files: data sets with names, folders of pictures, .npz files. No torch."""
