"""What a trained model can do, measured on its samples."""
