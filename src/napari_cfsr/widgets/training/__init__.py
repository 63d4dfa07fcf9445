"""The Train page: images in, a refiner and its report out."""
