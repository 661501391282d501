"""What is kept, held against what is written about it: `inspection` goes through the store, `compare` judges."""
